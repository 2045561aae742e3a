//! Tests of a survey: which requests may be done again, who lacks what, when enough has been heard.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::base::entry::Body;
use crate::base::level::Level;
use crate::base::marks::Marks;
use crate::base::reply::ReplyKind;
use crate::cluster::view::Route;

const ME: PeerIx = PeerIx(0);
const AHEAD_MS: u64 = CLOCK_AHEAD_MAX.as_millis() as u64;
/// When the request asked about began.
const BEGUN: UnixMs = 1_000_000;
const REQUEST: RequestId = RequestId { router: 1, sequence: 1 };

fn quorum() -> Required {
    Route { owners: (0..3).map(PeerIx).collect(), ..Route::default() }.write(Level::Quorum)
}

/// A version stamped at that time, by whoever.
fn at(ms: u64) -> Version {
    Version { origin: 9, ..Version::earliest_at(ms) }
}

fn entry(version: Version) -> Entry {
    Entry { version, body: Body::Live { value: Bytes::from_static(b"v"), deadline: None, marks: Marks::default() } }
}

fn outcome(version: Version) -> Outcome {
    Outcome { kind: ReplyKind::Int(1), reply: Bytes::from_static(b":1\r\n"), version }
}

/// What this node and the two others hold; `None` where nobody answered.
fn subject(held: [Option<Version>; 3]) -> Subject {
    let mut subject = Subject::new(quorum(), ME, held[0].map(entry));
    for (peer, version) in (1..).zip(&held[1..]) {
        if let Some(version) = version {
            subject.holds(PeerIx(peer), Some(entry(*version)));
        }
    }
    subject
}

fn verdict(subject: &Subject, begun_ms: Option<UnixMs>) -> Option<Verdict> {
    subject.verdicts(&quorum(), &[REQUEST], begun_ms).remove(&REQUEST)
}

#[test]
fn what_is_remembered_was_done_if_it_is_the_newest_or_a_majority_took_it() {
    let (old, mid, new) = (at(BEGUN), at(BEGUN + 1), at(BEGUN + 2));
    let held = [Some(new), Some(old), None];
    let told = |remembered: &[(u32, Version)]| {
        let mut subject = subject(held);
        remembered.iter().for_each(|(peer, version)| subject.remembers(PeerIx(*peer), REQUEST, outcome(*version)));
        verdict(&subject, Some(BEGUN))
    };
    assert_eq!(told(&[(0, new)]), Some(Verdict::Done(outcome(new))));
    assert_eq!(told(&[(1, old)]), Some(Verdict::InDoubt), "overruled, perhaps by one who never saw it");
    assert_eq!(told(&[(0, old), (1, old)]), Some(Verdict::Done(outcome(old))));
    assert_eq!(told(&[(1, old), (0, new)]), Some(Verdict::Done(outcome(new))), "begun twice, whichever is told first");
    assert_eq!(told(&[(0, new), (1, mid)]), Some(Verdict::Done(outcome(new))));
    assert_eq!(told(&[(0, mid), (1, old)]), Some(Verdict::InDoubt), "two outcomes are no majority of one");
}

#[test]
fn what_nobody_remembers_is_done_again_only_if_it_cannot_have_been() {
    let (before, since) = (at(BEGUN - AHEAD_MS - 1), at(BEGUN - AHEAD_MS));
    let told = |newest: Version, known: Option<(Version, Version)>| {
        let mut subject = subject([Some(newest), None, Some(at(1))]);
        known.into_iter().for_each(|(version, since)| subject.knows_since(version, since));
        verdict(&subject, Some(BEGUN))
    };
    assert_eq!(told(before, None), None, "what is there is older than the request");
    assert_eq!(told(since, None), Some(Verdict::InDoubt));
    assert_eq!(told(at(BEGUN + 9), None), Some(Verdict::InDoubt));
    assert_eq!(told(since, Some((since, before))), None, "every request since is remembered");
    assert_eq!(told(since, Some((since, since))), Some(Verdict::InDoubt), "not from so far back");
    assert_eq!(told(since, Some((at(1), at(1)))), Some(Verdict::InDoubt), "of another version");
    let first_attempt = subject([Some(since), None, None]);
    assert_eq!(verdict(&first_attempt, None), None);
    let nothing = subject([None, None, None]);
    assert_eq!(verdict(&nothing, Some(BEGUN)), None);
}

#[test]
fn who_lacks_the_newest_or_the_request_behind_it_is_brought_up_to_it() {
    let (old, new) = (at(1), at(2));
    let mut subject = subject([Some(old), Some(new), Some(new)]);
    let lacking = |subject: &Subject| subject.heard().filter(|peer| subject.lacks(*peer)).collect::<Vec<_>>();
    assert_eq!(subject.newer().map(|entry| entry.version), Some(new));
    assert_eq!(lacking(&subject), [], "this node is not among those asked");
    subject.remembers(PeerIx(1), REQUEST, outcome(new));
    assert_eq!(lacking(&subject), [PeerIx(2)], "it has the value, but would do the request again");
    subject.remembers(PeerIx(2), REQUEST, outcome(old));
    assert_eq!(lacking(&subject), [PeerIx(2)], "another outcome of the same request is not that one");
}

#[test]
fn those_who_decline_leave_hope_and_those_who_are_lost_do_not() {
    let mut subject = subject([None; 3]);
    assert_eq!(subject.progress(), Progress::Pending);
    subject.is_lost(PeerIx(1));
    assert_eq!((subject.progress(), subject.may_pass()), (Progress::Pending, false));
    subject.declines(PeerIx(2));
    assert_eq!((subject.progress(), subject.may_pass()), (Progress::Unmeetable, true));
}

#[test]
fn a_requirement_may_be_met_while_enough_are_not_known_to_be_down() {
    let subject = subject([None; 3]);
    let may_be_met = |down: &[u32]| subject.may_be_met(|peer| down.contains(&peer.0));
    assert!(may_be_met(&[]) && may_be_met(&[2]));
    assert!(!may_be_met(&[1, 2]));
}

proptest! {
    #[test]
    fn the_newest_of_all_that_answered_is_found_in_any_order(versions in prop::array::uniform3(prop::option::of(1..5u64))) {
        let held = versions.map(|version| version.map(at));
        let subject = subject(held);
        let newest = held.iter().flatten().max().copied().unwrap_or(Version::ZERO);
        prop_assert_eq!(subject.newest_version(), newest);
        prop_assert_eq!(subject.newer().is_some(), newest > held[0].unwrap_or(Version::ZERO));
        // Once those behind have taken it, enough hold it; if none does, only those who had it count.
        let heard = subject.heard().count();
        prop_assert_eq!(subject.is_settled(ME, |peer| subject.lacks(peer).then_some(true)), heard >= 1);
        let have = held[1..].iter().filter(|version| **version == Some(newest) && newest > Version::ZERO).count();
        prop_assert_eq!(subject.is_settled(ME, |_| None), have >= 1);
    }
}
