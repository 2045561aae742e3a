//! Tests of a connection's transaction: sequences of commands against a model, its bounds, and when it can be executed in one go.

use proptest::prelude::*;

use super::*;
use crate::base::level::Level;
use crate::base::reply::Wire;
use crate::protocol::request::{ClusterOp, Gather, Request};
use crate::protocol::resp::command::COMMANDS;
use crate::protocol::resp::session::Hello;
use crate::protocol::resp::value::Value;

fn seen(time: u64) -> Seen {
    Seen { time, origin: 1, live: true }
}

fn queued(parsed: Parsed) -> Queued {
    Queued { command: &COMMANDS[0], parsed: Ok(parsed) }
}

fn get(key: &'static str) -> Parsed {
    Parsed::Request(Request::One(Op::new(key.into(), Act::Get)))
}

fn taken(parsed: Vec<Parsed>) -> Taken {
    Taken { queue: parsed.into_iter().map(queued).collect(), bytes: 0, watched: BTreeMap::new() }
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Multi,
    /// A command that is right, with so many bytes.
    Command(usize),
    /// One that is refused at once.
    Wrong,
    Watch(&'static str, u64),
    Unwatch,
    Discard,
    Exec,
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Multi),
        6 => (0usize..100).prop_map(Step::Command),
        1 => Just(Step::Wrong),
        3 => (prop::sample::select(vec!["a", "b", "c"]), 1u64..9).prop_map(|(key, time)| Step::Watch(key, time)),
        1 => Just(Step::Unwatch),
        1 => Just(Step::Discard),
        3 => Just(Step::Exec),
        1 => Just(Step::Reset),
    ]
}

/// Redis's rules, told once more: what is queued, whether a command was refused, what is watched.
#[derive(Default)]
struct Model {
    queue: Option<Vec<usize>>,
    refused: bool,
    watched: BTreeMap<&'static str, u64>,
}

/// Does a step to both, and compares what they say.
fn advance(transaction: &mut Transaction, model: &mut Model, step: Step) {
    match step {
        Step::Multi => {
            assert_eq!(transaction.open().is_err(), model.queue.is_some());
            model.queue.get_or_insert_default();
        }
        Step::Command(bytes) if model.queue.is_some() => {
            transaction.count(bytes).unwrap();
            transaction.queue(queued(get("k"))).unwrap();
            model.queue.as_mut().unwrap().push(bytes);
        }
        Step::Wrong if model.queue.is_some() => {
            transaction.spoil();
            model.refused = true;
        }
        Step::Command(_) | Step::Wrong => {}
        Step::Watch(key, time) => {
            let allowed = transaction.may_watch(&[key.into()]);
            assert_eq!(allowed.is_err(), model.queue.is_some());
            if allowed.is_ok() {
                transaction.watch(key.as_bytes(), seen(time));
                model.watched.entry(key).or_insert(time);
            }
        }
        // Inside it is queued like any other.
        Step::Unwatch if model.queue.is_none() => {
            transaction.unwatch();
            model.watched.clear();
        }
        Step::Unwatch => {}
        Step::Discard => {
            assert_eq!(transaction.discard().is_err(), model.queue.is_none());
            if model.queue.is_some() {
                *model = Model::default();
            }
        }
        Step::Reset => {
            transaction.reset();
            *model = Model::default();
        }
        Step::Exec => match (transaction.take(), model.queue.take()) {
            (Err(text), None) => assert_eq!(text, EXEC_WITHOUT),
            (Err(text), Some(_)) => {
                assert_eq!((text, model.refused), (ABORTED, true));
                *model = Model::default();
            }
            (Ok(taken), Some(queue)) => {
                assert!(!model.refused);
                assert_eq!((taken.queue.len(), taken.bytes), (queue.len(), queue.iter().sum()));
                let watched: Vec<_> = taken.watched.iter().map(|(key, seen)| (&key[..], seen.time)).collect();
                let expected: Vec<_> = model.watched.iter().map(|(key, time)| (key.as_bytes(), *time)).collect();
                assert_eq!(watched, expected);
                *model = Model::default();
            }
            (Ok(_), None) => panic!("executed without MULTI"),
        },
    }
    assert_eq!(transaction.is_open(), model.queue.is_some());
    if !model.refused {
        assert_eq!(transaction.queued(), model.queue.as_ref().map(Vec::len));
    }
}

proptest! {
    #[test]
    fn any_sequence_of_commands_does_what_redis_does(steps in prop::collection::vec(step(), 0..60)) {
        let (mut transaction, mut model) = (Transaction::default(), Model::default());
        for step in steps {
            advance(&mut transaction, &mut model, step);
        }
    }
}

#[test]
fn a_transaction_is_bounded_in_operations_and_bytes_and_nothing_of_it_is_kept_beyond() {
    let mut transaction = Transaction::default();
    transaction.open().unwrap();
    let many = || Parsed::Request(Request::Many(Gather::Sum, vec![Op::new("k".into(), Act::Exists); 1 << 16]));
    assert_eq!(transaction.queue(queued(many())), Ok(()));
    assert_eq!(transaction.queue(queued(many())), Ok(()));
    assert_eq!(transaction.queue(queued(get("k"))), Err(TOO_LARGE));
    assert_eq!((transaction.held_bytes(), transaction.queue(queued(get("k")))), (0, Ok(())));
    assert_eq!(transaction.take().err(), Some(ABORTED));
    transaction.open().unwrap();
    assert_eq!(transaction.count(TRANSACTION_BYTES_MAX), Ok(()));
    assert_eq!(transaction.count(1), Err(TOO_LARGE));
    assert_eq!(transaction.take().err(), Some(ABORTED));
    assert_eq!(transaction.take().err(), Some(EXEC_WITHOUT));
}

#[test]
fn what_is_executed_in_one_go_is_bounded_unless_it_is_a_single_command() {
    let of = |count, bytes| Taken { bytes, ..taken(vec![get("k"); count]) };
    assert_eq!(of(2, ONE_GO_BYTES_MAX).fits_one_go(), Ok(()));
    assert_eq!(of(2, ONE_GO_BYTES_MAX + 1).fits_one_go(), Err(TOO_LARGE_FOR_ONE_GO));
    assert_eq!(of(1, TRANSACTION_BYTES_MAX).fits_one_go(), Ok(()));
}

#[test]
fn what_is_watched_is_bounded_in_keys_and_bytes() {
    let mut transaction = Transaction::default();
    for n in 0..WATCHED_KEYS_MAX {
        let key = Bytes::from(n.to_string());
        assert_eq!(transaction.may_watch(std::slice::from_ref(&key)), Ok(()));
        transaction.watch(&key, seen(1));
    }
    assert_eq!(transaction.may_watch(&["x".into()]), Err(TOO_MANY_WATCHED));
    assert_eq!(transaction.may_watch(&["1".into()]), Ok(()), "it is watched already");
    transaction.unwatch();
    let long = |n: u8| Bytes::from(vec![n; WATCHED_BYTES_MAX / 2]);
    assert_eq!(transaction.may_watch(&[long(1), long(2)]), Ok(()));
    assert_eq!(transaction.may_watch(&[long(1), long(2), "x".into()]), Err(TOO_MANY_WATCHED));
}

#[test]
fn it_can_be_executed_in_one_go_if_one_partition_has_all_keys() {
    let session = |command| Parsed::Session(command);
    let hello = |wire| session(SessionCommand::Hello(Hello { wire, ..Hello::default() }));
    let many = |keys: [&'static str; 2]| {
        Parsed::Request(Request::Many(Gather::Sum, keys.map(|key| Op::new(key.into(), Act::Delete)).to_vec()))
    };
    let here = Some(Partition::of(b"{a}1"));
    for (parsed, expected) in [
        (vec![get("{a}1"), get("{a}2")], here),
        (vec![get("{a}1"), get("{b}1")], None),
        (vec![many(["{a}1", "{a}2"])], here),
        (vec![get("{a}1"), many(["{a}1", "{b}1"])], None),
        (vec![get("{a}1"), session(SessionCommand::Ping(None)), session(SessionCommand::Time)], here),
        (
            vec![
                get("{a}1"),
                session(SessionCommand::Answer(Value::OK)),
                Parsed::Transaction(TransactionCommand::Unwatch),
            ],
            here,
        ),
        (vec![get("{a}1"), Parsed::Request(Request::Cluster(ClusterOp::DbSize))], None),
        (vec![get("{a}1"), hello(None)], here),
        (vec![hello(Some(Wire::Resp3)), get("{a}1")], None),
        (vec![get("{a}1"), session(SessionCommand::Consistency(Some(Level::All)))], None),
        (vec![session(SessionCommand::Ping(None))], None),
        (vec![], None),
    ] {
        assert_eq!(taken(parsed.clone()).partition(), expected, "{parsed:?}");
    }
}

#[test]
fn watched_keys_are_compared_with_the_commands_where_they_are_of_one_partition() {
    let mut taken = taken(vec![get("{a}1")]);
    taken.watched = [("{a}x", 1), ("{b}x", 2)].map(|(key, time)| (Bytes::from(key), seen(time))).into();
    let keys = |ops: &[Op]| ops.iter().map(|op| op.key.clone()).collect::<Vec<_>>();
    let (inside, before) = taken.conditions(taken.partition());
    assert_eq!((keys(&inside), keys(&before)), (vec!["{a}x".into()], vec!["{b}x".into()]));
    assert_eq!(inside[0].act, Act::Unchanged { since: seen(1) });
    let (inside, before) = taken.conditions(None);
    assert_eq!((inside.len(), before.len()), (0, 2));
}
