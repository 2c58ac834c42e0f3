//! Rule `signatures`: an actor crate's public items show no lock, no channel end and no actor reference.
//!
//! Whoever holds one of these can wait on, block or flood the actor past its door. The scan reads items marked `pub`,
//! in private modules too; `pub(crate)` is free, and aliases are not chased.

use std::path::PathBuf;

use proc_macro2::Ident;
use syn::visit::{self, Visit};
use syn::{
    File, ImplItemConst, ImplItemFn, ItemConst, ItemEnum, ItemFn, ItemImpl, ItemStatic, ItemStruct, ItemTrait,
    ItemType, ItemUnion, ItemUse, Path, UseTree, Visibility,
};

use super::Violation;
use super::sources::Source;

const RULE: &str = "signatures";

const LOCKS: [&str; 13] = [
    "parking_lot",
    "Mutex",
    "MutexGuard",
    "MappedMutexGuard",
    "OwnedMutexGuard",
    "FairMutex",
    "ReentrantMutex",
    "RwLock",
    "RwLockReadGuard",
    "RwLockWriteGuard",
    "OwnedRwLockReadGuard",
    "OwnedRwLockWriteGuard",
    "Condvar",
];

const CHANNELS: [&str; 17] = [
    "mpsc",
    "oneshot",
    "watch",
    "broadcast",
    "flume",
    "kanal",
    "async_channel",
    "crossbeam_channel",
    "Sender",
    "SyncSender",
    "WeakSender",
    "UnboundedSender",
    "Receiver",
    "UnboundedReceiver",
    "OutputPort",
    "RpcReplyPort",
    "OwnedPermit",
];

const ACTORS: [&str; 3] = ["ActorRef", "ActorCell", "DerivedActorRef"];

/// Says what kind of leak a name is.
fn leak(name: &str) -> Option<&'static str> {
    if LOCKS.contains(&name) {
        Some("a lock: actors share no state; ask through a verb")
    } else if CHANNELS.contains(&name) {
        Some("a channel end: use `mailbox`'s outlets and replies, which are bounded and counted")
    } else if ACTORS.contains(&name) {
        Some("an actor reference: hand out the mailbox newtype of `ingress.rs`")
    } else {
        None
    }
}

pub(crate) fn check(source: &Source, file: &File) -> Vec<Violation> {
    let mut items = PublicItems { file: source.path.clone(), found: Vec::new() };
    items.visit_file(file);
    items.found
}

/// Walks to the public items and has their signatures searched.
struct PublicItems {
    file: PathBuf,
    found: Vec<Violation>,
}

impl PublicItems {
    /// Searches one signature for names that leak.
    fn search(&mut self, item: &Ident, walk: impl FnOnce(&mut Names)) {
        let mut names = Names::default();
        walk(&mut names);
        for name in names.0 {
            self.report(item, &name);
        }
    }

    fn report(&mut self, item: &Ident, name: &Ident) {
        if let Some(leak) = leak(&name.to_string()) {
            self.found.push(Violation {
                file: self.file.clone(),
                line: name.span().start().line,
                rule: RULE,
                why: format!("`{item}` is public and shows `{name}`, {leak}"),
            });
        }
    }

    fn imports(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                self.report(&path.ident, &path.ident);
                self.imports(&path.tree);
            }
            UseTree::Name(used) => self.report(&used.ident, &used.ident),
            UseTree::Rename(used) => self.report(&used.rename, &used.ident),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.imports(tree)),
            _ => {}
        }
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

impl<'ast> Visit<'ast> for PublicItems {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if is_public(&item.vis) {
            self.search(&item.sig.ident, |names| names.visit_signature(&item.sig));
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        // What a foreign trait's methods take is that trait's choice (ractor's own `Actor` takes `ActorRef`).
        if item.trait_.is_none() {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if is_public(&item.vis) {
            self.search(&item.sig.ident, |names| names.visit_signature(&item.sig));
        }
    }

    fn visit_impl_item_const(&mut self, item: &'ast ImplItemConst) {
        if is_public(&item.vis) {
            self.search(&item.ident, |names| names.visit_type(&item.ty));
        }
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        if is_public(&item.vis) {
            self.search(&item.ident, |names| {
                names.visit_generics(&item.generics);
                item.fields.iter().filter(|field| is_public(&field.vis)).for_each(|field| names.visit_type(&field.ty));
            });
        }
    }

    fn visit_item_union(&mut self, item: &'ast ItemUnion) {
        if is_public(&item.vis) {
            self.search(&item.ident, |names| names.visit_fields_named(&item.fields));
        }
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        if is_public(&item.vis) {
            self.search(&item.ident, |names| {
                names.visit_generics(&item.generics);
                let fields = item.variants.iter().flat_map(|variant| &variant.fields);
                fields.for_each(|field| names.visit_type(&field.ty));
            });
        }
    }

    fn visit_item_type(&mut self, item: &'ast ItemType) {
        if is_public(&item.vis) {
            self.search(&item.ident, |names| names.visit_type(&item.ty));
        }
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        if is_public(&item.vis) {
            self.search(&item.ident, |names| visit::visit_item_trait(names, item));
        }
    }

    fn visit_item_const(&mut self, item: &'ast ItemConst) {
        if is_public(&item.vis) {
            self.search(&item.ident, |names| names.visit_type(&item.ty));
        }
    }

    fn visit_item_static(&mut self, item: &'ast ItemStatic) {
        if is_public(&item.vis) {
            self.search(&item.ident, |names| names.visit_type(&item.ty));
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if is_public(&item.vis) {
            self.imports(&item.tree);
        }
    }
}

/// Collects the name that leaks from each path of a signature; bodies are private and are not walked.
#[derive(Default)]
struct Names(Vec<Ident>);

impl<'ast> Visit<'ast> for Names {
    fn visit_path(&mut self, path: &'ast Path) {
        let mut segments = path.segments.iter().map(|segment| &segment.ident);
        self.0.extend(segments.rfind(|name| leak(&name.to_string()).is_some()).cloned());
        visit::visit_path(self, path);
    }

    fn visit_block(&mut self, _body: &'ast syn::Block) {}

    fn visit_attribute(&mut self, _attribute: &'ast syn::Attribute) {}
}

#[cfg(test)]
mod tests {
    use super::super::sources::{self, tests::source};
    use super::*;

    fn found(text: &str) -> Vec<(usize, String)> {
        let source = source("crates/gossip/src/lib.rs", text);
        let file = sources::parse(&source).expect("it is Rust");
        check(&source, &file).into_iter().map(|violation| (violation.line, violation.why)).collect()
    }

    fn lines(text: &str) -> Vec<usize> {
        found(text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_lock_a_channel_end_and_an_actor_reference_are_each_named_for_what_they_are() {
        let found = found(
            "pub fn state(&self) -> Arc<Mutex<State>> { todo() }\n\
             pub fn events() -> tokio::sync::mpsc::Receiver<Event> { todo() }\n\
             pub fn actor(&self) -> &ActorRef<Message> { &self.actor }\n",
        );
        assert!(found[0].0 == 1 && found[0].1.contains("a lock"), "{found:?}");
        assert!(found.iter().any(|(line, why)| *line == 2 && why.contains("a channel end")), "{found:?}");
        assert!(found.iter().any(|(line, why)| *line == 3 && why.contains("an actor reference")), "{found:?}");
    }

    #[test]
    fn every_kind_of_public_item_is_searched() {
        let text = "pub struct Held { pub lock: RwLock<u8>, inner: Mutex<u8> }\n\
                    pub enum Message { Ask(RpcReplyPort<u8>), Stop }\n\
                    pub type Door = UnboundedSender<u8>;\n\
                    pub trait Reach { fn reach(&self) -> ActorCell; }\n\
                    impl Held { pub fn take(&self, reply: oneshot::Sender<u8>) {} }\n\
                    mod private { pub fn inner() -> Option<broadcast::Sender<u8>> { None } }\n\
                    pub use tokio::sync::watch;\n\
                    pub static TABLE: parking_lot::Mutex<u8> = make();\n\
                    pub fn bound<F: Fn(ActorCell)>(f: F) {}\n";
        let mut lines = lines(text);
        lines.dedup();
        assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn private_items_bodies_and_trait_implementations_pass() {
        let text = "pub struct Mailbox { actor: ActorRef<Message> }\n\
                    pub(crate) fn actor() -> ActorRef<Message> { todo() }\n\
                    fn private(lock: &Mutex<u8>) {}\n\
                    impl Mailbox { pub fn publish(&self, topic: &str) { let (a, b) = oneshot::channel::<u8>(); } }\n\
                    impl Actor for Shell { fn pre_start(&self, myself: ActorRef<Message>) {} }\n\
                    pub trait Give { fn give(&self) { let _: Option<Mutex<u8>> = None; } }\n";
        assert_eq!(lines(text), [0; 0]);
    }
}
