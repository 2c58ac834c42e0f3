//! Rule `door`: nobody speaks to an actor past its door. And a warning for files that hold too much.
//!
//! The scan reads tokens, not expressions: code inside `select!` and other macros is only tokens to a parser.

use std::path::Path;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::Visit;
use syn::{File, UseTree};

use super::Violation;
use super::graph::Package;
use super::sources::Source;

const RULE: &str = "door";

/// Lines a library file may have before it is said to hold more than one idea.
const LONG: usize = 600;

/// ractor's ways to put a message into a mailbox.
const VERBS: [&str; 4] = ["cast", "call", "call_and_forward", "send_message"];
const MACROS: [&str; 4] = ["cast", "call", "call_t", "forward"];
/// What those are reached through when they are not methods.
const OWNERS: [&str; 5] = ["ractor", "rpc", "ActorRef", "ActorCell", "DerivedActorRef"];

/// Finds raw messages: they are unbounded, untyped at the edge and without an overflow rule, so they stand only in
/// an `ingress.rs`, beside the rule, and in `mailbox`, which makes the verbs.
pub(crate) fn raw_messages(package: &Package, source: &Source, file: &File) -> Vec<Violation> {
    if package.name == "peerage-mailbox" || source.is_ingress() {
        return Vec::new();
    }
    let mut found = Vec::new();
    tokens(&file.to_token_stream(), &mut found);
    let mut imports = Imports::default();
    imports.visit_file(file);
    found.extend(imports.found);
    found.into_iter().map(|(line, what)| violation(&source.path, line, &what)).collect()
}

fn violation(path: &Path, line: usize, what: &str) -> Violation {
    let why = format!("a raw `{what}`: send through a verb of the actor's mailbox, written in its `ingress.rs`");
    Violation { file: path.to_path_buf(), line, rule: RULE, why }
}

fn tokens(stream: &TokenStream, found: &mut Vec<(usize, String)>) {
    let trees: Vec<TokenTree> = stream.clone().into_iter().collect();
    for (index, tree) in trees.iter().enumerate() {
        match tree {
            TokenTree::Group(group) => tokens(&group.stream(), found),
            TokenTree::Ident(name) => {
                let (before, after) = (&trees[..index], &trees[index + 1..]);
                let line = name.span().start().line;
                let name = name.to_string();
                if VERBS.contains(&&*name) && is_punct(before.last(), '.') && has_arguments(after) {
                    found.push((line, format!(".{name}(…)")));
                } else if MACROS.contains(&&*name) && is_punct(after.first(), '!') && is_group(after.get(1)) {
                    found.push((line, format!("{name}!")));
                } else if VERBS.contains(&&*name)
                    && let Some(owner) = owner(before)
                {
                    found.push((line, format!("{owner}::{name}")));
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

fn is_punct(tree: Option<&TokenTree>, wanted: char) -> bool {
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_group(tree: Option<&TokenTree>) -> bool {
    matches!(tree, Some(TokenTree::Group(_)))
}

/// Whether a call with at least one argument follows: `pointer.cast()` has none, and a turbofish is stepped over.
fn has_arguments(mut after: &[TokenTree]) -> bool {
    if is_punct(after.first(), ':') {
        let Some(end) = after.iter().position(|tree| is_group(Some(tree))) else { return false };
        after = &after[end..];
    }
    matches!(after.first(), Some(TokenTree::Group(group))
        if group.delimiter() == Delimiter::Parenthesis && !group.stream().is_empty())
}

/// The owner in `Owner::name` or `Owner::<T>::name`, if it is one of ractor's.
fn owner(before: &[TokenTree]) -> Option<String> {
    let [rest @ .., TokenTree::Punct(first), TokenTree::Punct(second)] = before else { return None };
    if first.as_char() != ':' || first.spacing() != Spacing::Joint || second.as_char() != ':' {
        return None;
    }
    let mut depth = 0_i32;
    for tree in rest.iter().rev() {
        match tree {
            TokenTree::Punct(punct) if punct.as_char() == '>' => depth += 1,
            TokenTree::Punct(punct) if punct.as_char() == '<' => depth -= 1,
            TokenTree::Punct(punct) if punct.as_char() == ':' && depth == 0 => {}
            TokenTree::Ident(name) if depth == 0 => {
                let name = name.to_string();
                return OWNERS.contains(&&*name).then_some(name);
            }
            _ if depth > 0 => {}
            _ => return None,
        }
    }
    None
}

/// `use ractor::{cast, …}`: the functions and macros by their bare names.
#[derive(Default)]
struct Imports {
    inside_ractor: bool,
    found: Vec<(usize, String)>,
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_use_tree(&mut self, tree: &'ast UseTree) {
        let mut leaf = |name: &proc_macro2::Ident| {
            let text = name.to_string();
            if self.inside_ractor && (VERBS.contains(&&*text) || MACROS.contains(&&*text)) {
                self.found.push((name.span().start().line, format!("ractor::{text}")));
            }
        };
        match tree {
            UseTree::Name(used) => leaf(&used.ident),
            UseTree::Rename(used) => leaf(&used.ident),
            UseTree::Path(path) => {
                let outer = self.inside_ractor;
                self.inside_ractor |= path.ident == "ractor";
                self.visit_use_tree(&path.tree);
                self.inside_ractor = outer;
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.visit_use_tree(tree)),
            UseTree::Glob(_) => {}
        }
    }
}

/// Warns of a file that has grown past one idea.
pub(crate) fn length(source: &Source) -> Option<Violation> {
    let lines = source.text.lines().count();
    (lines > LONG).then(|| Violation {
        file: source.path.clone(),
        line: LONG + 1,
        rule: "length",
        why: format!("{lines} lines: if it takes two ideas, it is two files"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::package;
    use super::super::sources::{self, tests::source};
    use super::*;

    fn lines(name: &str, path: &str, text: &str) -> Vec<usize> {
        let source = source(path, text);
        let file = sources::parse(&source).expect("it is Rust");
        let mut lines: Vec<usize> = raw_messages(&package(name, &[]), &source, &file).iter().map(|v| v.line).collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    const PLANTED: &str = r#"use ractor::{Actor, cast};
fn raw(actor: &ActorRef<Message>) {
    actor.cast(Message::Stop);
    let _ = actor.call(Message::Ask, None);
    cast!(actor, Message::Stop);
    call_t!(actor, Message::Ask, 100);
    ractor::cast(actor, Message::Stop);
    ActorRef::<Message>::send_message(actor, Message::Stop);
    select! { _ = ticks.tick() => actor.cast(Message::Tick) }
    actor.send_message::<Message>(Message::Stop);
}
"#;

    #[test]
    fn every_raw_message_is_found_at_its_line_inside_macros_too() {
        assert_eq!(lines("peerage-gossip", "crates/gossip/src/actor.rs", PLANTED), [1, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn ingress_and_mailbox_may_send_raw_messages() {
        assert_eq!(lines("peerage-gossip", "crates/gossip/src/ingress.rs", PLANTED), [0; 0]);
        assert_eq!(lines("peerage-mailbox", "crates/mailbox/src/door.rs", PLANTED), [0; 0]);
    }

    #[test]
    fn words_that_only_look_like_raw_messages_pass() {
        let text = "fn fine(pointer: *const u8, gossip: &Mailbox) {\n    let _ = pointer.cast::<u16>();\n    \
                    gossip.publish(1);\n    let call = cast(3);\n    // actor.cast(Message::Stop)\n    \
                    service::call(call);\n}\n#[cfg(test)]\nmod tests { fn t(a: A) { a.cast(1); } }\n";
        assert_eq!(lines("peerage-gossip", "crates/gossip/src/actor.rs", text), [0; 0]);
    }

    #[test]
    fn a_long_file_is_warned_of_and_a_short_one_is_not() {
        let long = source("crates/gossip/src/machine.rs", &"//\n".repeat(LONG + 1));
        assert!(length(&long).is_some_and(|warning| warning.why.contains("601 lines")));
        assert!(length(&source("crates/gossip/src/lib.rs", "//\n")).is_none());
    }
}
