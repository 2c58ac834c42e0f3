//! Enums whose values are words in metrics.

/// Declares an enum of values without fields, each with its word for metrics: `ALL` lists them in order, and `label` gives
/// the word. The crate that uses it depends on `serde`, as values are part of what machines tell.
///
/// ```
/// peerage_machine::labelled! {
///     /// Why something was not done.
///     Drop {
///         /// There is no room.
///         Full = "full",
///         /// It came too late.
///         Late = "late",
///     }
/// }
///
/// assert_eq!(Drop::ALL.iter().map(|drop| drop.label()).collect::<Vec<_>>(), ["full", "late"]);
/// ```
#[macro_export]
macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// A word for metrics.
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }
        }
    };
}
