//! Which operations of a worker were kept: its folder must be exactly what some number of its first ones make.

use crate::numbered::{Journal, Step};
use crate::state::{Node, State};
use std::collections::{BTreeMap, BTreeSet};

/// How many of the first operations make what is there. More than one number fits where operations cancel out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) least: usize,
    pub(crate) most: usize,
}

/// A state that grows, and where it differs from what is there.
struct Replay<'a> {
    state: State,
    seen: &'a BTreeMap<String, Node>,
    differ: BTreeSet<String>,
}

impl<'a> Replay<'a> {
    fn new(seen: &'a BTreeMap<String, Node>) -> Self {
        Self { state: State::default(), seen, differ: seen.keys().cloned().collect() }
    }

    fn step(&mut self, step: &Step) {
        for path in self.state.apply(&step.op) {
            if self.state.is(&path, self.seen.get(&path)) {
                self.differ.remove(&path);
            } else {
                self.differ.insert(path);
            }
        }
    }

    fn tell(&self) -> Vec<String> {
        let short = |node: Option<&Node>| match node {
            Some(Node::File { bytes, mode }) => {
                let start = String::from_utf8_lossy(&bytes[..bytes.len().min(24)]).into_owned();
                format!("{} bytes {start:?}… mode {mode:o}", bytes.len())
            }
            other => format!("{other:?}"),
        };
        let differ = self.differ.iter().take(12);
        differ
            .map(|path| {
                let want = self.state.get(path);
                format!("{path}: have {}, want {}", short(self.seen.get(path)), short(want.as_ref()))
            })
            .collect()
    }
}

/// Finds what was kept of a worker. At least what was promised durable, at most all that was begun. With `late` the
/// last operation, which met a cut, may also have been executed after others had been lost.
///
/// # Errors
/// Nothing fits; says what differs from the number that fits best.
pub(crate) fn kept(journal: &Journal, seen: &BTreeMap<String, Node>, late: bool) -> Result<Kept, String> {
    let mut replay = Replay::new(seen);
    let mut found: Option<Kept> = None;
    let mut best: Option<(usize, usize, Vec<String>)> = None;
    for number in 0..=journal.steps.len() {
        if number > 0 {
            replay.step(&journal.steps[number - 1]);
        }
        if number < journal.durable {
            continue;
        }
        if replay.differ.is_empty() || late && fits_with_the_last(&replay, journal, number) {
            found = Some(Kept { least: found.map_or(number, |kept| kept.least), most: number });
        }
        if best.as_ref().is_none_or(|(_, differ, _)| replay.differ.len() <= *differ) {
            best = Some((number, replay.differ.len(), replay.tell()));
        }
    }
    found.ok_or_else(|| {
        let (number, differ, lines) = best.unwrap_or_default();
        let last: Vec<String> = journal.steps.iter().rev().take(6).map(Step::short).collect();
        format!(
            "{}: no prefix of {} operations ({} durable) makes what is there; best is {number} with {differ} \
             differences:\n  {}\nlast operations, newest first: {last:#?}",
            journal.name,
            journal.steps.len(),
            journal.durable,
            lines.join("\n  ")
        )
    })
}

fn fits_with_the_last(replay: &Replay<'_>, journal: &Journal, number: usize) -> bool {
    let Some(last) = journal.steps.last() else { return false };
    if number >= journal.steps.len() || replay.differ.len() > 2 {
        return false;
    }
    let mut with = Replay { state: replay.state.clone(), seen: replay.seen, differ: replay.differ.clone() };
    with.step(last);
    with.differ.is_empty()
}

/// Of two workers on one mount: a kept operation implies all that had returned before it was begun.
///
/// # Errors
/// One was kept without an earlier one.
pub(crate) fn in_order(kept: &[(&Journal, Kept)]) -> Result<(), String> {
    for (of, those) in kept {
        let Some(last) = those.least.checked_sub(1).and_then(|at| of.steps.get(at)) else { continue };
        for (other, kept) in kept {
            let lost = other.steps.get(kept.most);
            if let Some(lost) = lost
                && lost.returned.is_some_and(|returned| returned < last.begun)
            {
                return Err(format!(
                    "{}: {} was kept, but {} of {}, which had returned before, was not",
                    of.name,
                    last.short(),
                    lost.short(),
                    other.name
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Kept, in_order, kept};
    use crate::numbered::{Journal, Step};
    use crate::state::{Node, Op};
    use std::collections::BTreeMap;

    fn journal(name: &str, first: u64, ops: &[Op]) -> Journal {
        let steps = (first..).step_by(4).zip(ops);
        let steps =
            steps.map(|(at, op)| Step { op: op.clone(), begun: at, returned: Some(at + 1), failed: None });
        Journal { name: name.to_owned(), steps: steps.collect(), durable: 0 }
    }

    fn folders(names: &[&str]) -> BTreeMap<String, Node> {
        names.iter().map(|name| ((*name).to_owned(), Node::Folder)).collect()
    }

    #[test]
    fn what_is_there_must_be_a_prefix_that_holds_all_that_is_durable() {
        let make = |name: &str| Op::Mkdir(name.to_owned());
        let mut ops = journal("w", 0, &[make("a"), make("b"), Op::Rmdir("a".to_owned()), make("c")]);
        assert_eq!(kept(&ops, &folders(&["a", "b"]), false), Ok(Kept { least: 2, most: 2 }));
        assert_eq!(kept(&ops, &folders(&["b", "c"]), false), Ok(Kept { least: 4, most: 4 }));
        assert!(kept(&ops, &folders(&["a", "c"]), false).is_err());
        // The last one after a gap.
        assert!(kept(&ops, &folders(&["a", "b", "c"]), false).is_err());
        assert!(kept(&ops, &folders(&["a", "b", "c"]), true).is_ok());
        ops.durable = 3;
        assert!(kept(&ops, &folders(&["a", "b"]), false).unwrap_err().contains("best is 3"));
    }

    #[test]
    fn a_kept_operation_implies_those_that_had_returned_before_it_began() {
        let make = |name: &str| Op::Mkdir(name.to_owned());
        let (early, late) = (journal("early", 0, &[make("a")]), journal("late", 100, &[make("b")]));
        let all = |n| Kept { least: n, most: n };
        in_order(&[(&early, all(1)), (&late, all(0))]).unwrap();
        in_order(&[(&early, all(0)), (&late, all(1))]).unwrap_err();
        // Begun before the other had returned: either may be there alone.
        let beside = journal("beside", 0, &[make("c")]);
        in_order(&[(&early, all(0)), (&beside, all(1))]).unwrap();
    }
}
