//! What a client can be asked, as futures with options: each is awaited as it is, or told more first. Makes operations of arguments and
//! results of replies; never sends. Exercised by `tests/client.rs` and the examples.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use crate::base::hlc::Version;
use crate::base::item::{ItemAct, ItemOutcome, ItemTerms, Only};
use crate::base::level::Level;
use crate::base::op::{Act, Deadline, Expiry, Op, SetAnswer, When};
use crate::protocol::resp::value::Value;

use super::error::{Applied, Error, ErrorKind};
use super::reply::{Item, Reply};
use super::{Client, Result};

/// A future that is already under way.
type Running<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How long a key lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// There is no such key.
    Missing,
    /// It has no deadline.
    Unlimited,
    /// It goes after this time.
    Left(Duration),
}

/// A request that is sent when it is awaited.
#[must_use = "a request is sent when it is awaited"]
pub struct Request<T> {
    client: Client,
    ops: Vec<Op>,
    terms: Asked,
    read: fn(Vec<Result<Reply>>) -> Result<T>,
}

/// What a request asks for besides.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub(super) level: Option<Level>,
    pub(super) timeout: Option<Duration>,
}

impl<T> Request<T> {
    fn new(client: &Client, ops: Vec<Op>, read: fn(Vec<Result<Reply>>) -> Result<T>) -> Self {
        Self { client: client.clone(), ops, terms: Asked::default(), read }
    }

    /// How many replicas take part.
    pub fn consistency(mut self, level: Level) -> Self {
        self.terms.level = Some(level);
        self
    }

    /// How long it may take, retries included; at most [`TIMEOUT_MAX`](super::TIMEOUT_MAX).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.terms.timeout = Some(timeout);
        self
    }
}

impl<T: 'static> IntoFuture for Request<T> {
    type Output = Result<T>;
    type IntoFuture = Running<Result<T>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, ops, terms, read } = self;
        Box::pin(async move { read(client.execute(ops, terms).await?) })
    }
}

/// A `set` that is sent when it is awaited. The result is whether the value was stored: false if a condition did not hold.
#[must_use = "a request is sent when it is awaited"]
pub struct Set {
    client: Client,
    key: Bytes,
    value: Bytes,
    expiry: Expiry,
    when: When,
    version: Option<Version>,
    terms: Asked,
}

impl Set {
    /// The key goes after this time, which is kept to the millisecond. Without it the key stays, whatever deadline it had.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.expiry = until(ttl);
        self
    }

    /// The key keeps the deadline that it has.
    pub fn keep_ttl(mut self) -> Self {
        self.expiry = Expiry::Keep;
        self
    }

    /// Only if there is no such key.
    pub fn if_absent(mut self) -> Self {
        self.when = When::Absent;
        self
    }

    /// Only if there is such a key.
    pub fn if_present(mut self) -> Self {
        self.when = When::Present;
        self
    }

    /// Only if the key is as [`Client::get_item`] has read it. Takes the place of the other conditions.
    pub fn if_version(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }

    /// How many replicas take part.
    pub fn consistency(mut self, level: Level) -> Self {
        self.terms.level = Some(level);
        self
    }

    /// How long it may take, retries included; at most [`TIMEOUT_MAX`](super::TIMEOUT_MAX).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.terms.timeout = Some(timeout);
        self
    }

    fn op(&self) -> Op {
        let Self { key, value, expiry, when, .. } = self;
        match self.version {
            None => set(key.clone(), value.clone(), *expiry, *when),
            Some(version) => {
                let terms =
                    ItemTerms { expiry: *expiry, only: Some(Only::Version(version)), bare: true, ..Default::default() };
                let mut value = value.to_vec();
                terms.append_to(&mut value);
                Op { key: key.clone(), act: Act::Item(ItemAct::Store), value: value.into() }
            }
        }
    }
}

impl IntoFuture for Set {
    type Output = Result<bool>;
    type IntoFuture = Running<Result<bool>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { done(self.client.execute(vec![self.op()], self.terms).await?) })
    }
}

/// A key of its own; keys are short.
fn bytes(key: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(key.as_ref())
}

fn until(ttl: Duration) -> Expiry {
    Expiry::Until(Deadline::In(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)))
}

fn set(key: Bytes, value: Bytes, expiry: Expiry, when: When) -> Op {
    Op { key, act: Act::Set { expiry, when, answer: SetAnswer::Done, flags: 0 }, value }
}

impl Client {
    /// The value of a key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Request<Option<Bytes>> {
        Request::new(self, vec![Op::new(bytes(key), Act::Get)], |replies| bulk(one(replies)?))
    }

    /// The value of a key with its version and the time it has left.
    pub fn get_item(&self, key: impl AsRef<[u8]>) -> Request<Option<Item>> {
        Request::new(self, vec![Op::new(bytes(key), Act::Item(ItemAct::Read))], |replies| item(one(replies)?))
    }

    /// Stores a value. Without further conditions any value and deadline that the key has are replaced.
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Set {
        let (key, value) = (bytes(key), value.into());
        let client = self.clone();
        Set { client, key, value, expiry: Expiry::Clear, when: When::Always, version: None, terms: Asked::default() }
    }

    /// Deletes a key. Whether there was one.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Request<bool> {
        Request::new(self, vec![Op::new(bytes(key), Act::Delete)], flag)
    }

    /// Deletes a key if it is as [`get_item`](Self::get_item) has read it. Whether it was.
    pub fn delete_version(&self, key: impl AsRef<[u8]>, version: Version) -> Request<bool> {
        let terms = ItemTerms { only: Some(Only::Version(version)), bare: true, ..Default::default() };
        let op = Op { key: bytes(key), act: Act::Item(ItemAct::Remove), value: terms.alone() };
        Request::new(self, vec![op], done)
    }

    /// Adds to the decimal integer at a key, 0 where there is none. The sum. Applied once however often it has to be sent.
    pub fn incr(&self, key: impl AsRef<[u8]>, by: i64) -> Request<i64> {
        Request::new(self, vec![Op::new(bytes(key), Act::Incr { by })], |replies| int(one(replies)?))
    }

    /// How long a key lives.
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Request<Lifetime> {
        let op = Op::new(bytes(key), Act::Ttl { ms: true, absolute: false });
        Request::new(self, vec![op], |replies| {
            Ok(match int(one(replies)?)? {
                -2 => Lifetime::Missing,
                ms => u64::try_from(ms).map_or(Lifetime::Unlimited, |ms| Lifetime::Left(Duration::from_millis(ms))),
            })
        })
    }

    /// Has a key go after this time. Whether there is one.
    pub fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Request<bool> {
        let at = Deadline::In(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        Request::new(self, vec![Op::new(bytes(key), Act::Expire { at, when: Default::default() })], flag)
    }

    /// Has a key stay. Whether it had a deadline.
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Request<bool> {
        Request::new(self, vec![Op::new(bytes(key), Act::Persist)], flag)
    }

    /// Whether there is such a key.
    pub fn exists(&self, key: impl AsRef<[u8]>) -> Request<bool> {
        Request::new(self, vec![Op::new(bytes(key), Act::Exists)], flag)
    }

    /// The values of several keys, in their order. Each node is asked once for all it coordinates.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Request<Vec<Option<Bytes>>> {
        let ops = keys.into_iter().map(|key| Op::new(bytes(key), Act::Get)).collect();
        Request::new(self, ops, |replies| replies.into_iter().map(|reply| bulk(reply?)).collect())
    }

    /// The same with versions and the time left. Not counted as a use of the keys.
    pub fn get_items<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Request<Vec<Option<Item>>> {
        let ops = keys.into_iter().map(|key| Op::new(bytes(key), Act::Item(ItemAct::Peek))).collect();
        Request::new(self, ops, |replies| replies.into_iter().map(|reply| item(reply?)).collect())
    }

    /// The lengths of the values of several keys. Not counted as a use of them.
    pub fn lengths<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Request<Vec<Option<usize>>> {
        let value = ItemTerms { bare: true, ..Default::default() }.alone();
        let peek = |key: K| Op { key: bytes(key), act: Act::Item(ItemAct::Peek), value: value.clone() };
        Request::new(self, keys.into_iter().map(peek).collect(), |replies| {
            replies.into_iter().map(|reply| len(reply?)).collect()
        })
    }

    /// Stores several values, each node's share at once. Of an error others may have been stored: it then says `Unknown`.
    pub fn set_many<K: AsRef<[u8]>, V: Into<Bytes>>(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Request<()> {
        let store = |(key, value): (K, V)| set(bytes(key), value.into(), Expiry::Clear, When::Always);
        Request::new(self, pairs.into_iter().map(store).collect(), |replies| all(&replies))
    }

    /// Deletes several keys, each node's share at once. Of an error others may have been deleted: it then says `Unknown`.
    pub fn delete_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Request<u64> {
        let ops = keys.into_iter().map(|key| Op::new(bytes(key), Act::Delete)).collect();
        Request::new(self, ops, |replies| {
            all(&replies)?;
            let deleted = replies.into_iter().filter(|reply| *reply == Ok(Reply::Value(Value::Int(1))));
            Ok(deleted.count() as u64)
        })
    }
}

fn one(replies: Vec<Result<Reply>>) -> Result<Reply> {
    replies.into_iter().next().unwrap_or_else(|| Err(Error::strange("nothing")))
}

/// The error that leaves most in doubt, which speaks for all. That some were refused and others were not is doubt as well.
fn all(replies: &[Result<Reply>]) -> Result<()> {
    let first =
        |applied| replies.iter().filter_map(|reply| reply.as_ref().err()).find(|error| error.applied() == applied);
    let is_refused = |reply: &Result<Reply>| reply.as_ref().is_err_and(|error| error.applied() == Applied::No);
    let worst = first(Applied::Unknown).or_else(|| first(Applied::No)).or_else(|| first(Applied::Yes));
    match worst {
        None => Ok(()),
        Some(error) if error.applied() == Applied::No && !replies.iter().all(is_refused) => {
            Err(Error::new(error.kind(), Applied::Unknown, format!("{error}; others of the batch were applied")))
        }
        Some(error) => Err(error.clone()),
    }
}

fn bulk(reply: Reply) -> Result<Option<Bytes>> {
    match reply {
        Reply::Value(Value::Bulk(value)) => Ok(Some(value)),
        Reply::Value(Value::Null) => Ok(None),
        other => Err(Error::strange(other)),
    }
}

fn item(reply: Reply) -> Result<Option<Item>> {
    match reply {
        Reply::Item(_, _, item) => Ok(item),
        Reply::Value(Value::Null) => Ok(None),
        other => Err(Error::strange(other)),
    }
}

fn len(reply: Reply) -> Result<Option<usize>> {
    match reply {
        Reply::Item(_, len, _) => Ok(Some(len as usize)),
        Reply::Value(Value::Null) => Ok(None),
        other => Err(Error::strange(other)),
    }
}

fn int(reply: Reply) -> Result<i64> {
    match reply {
        Reply::Value(Value::Int(n)) => Ok(n),
        other => Err(Error::strange(other)),
    }
}

fn flag(replies: Vec<Result<Reply>>) -> Result<bool> {
    int(one(replies)?).map(|n| n != 0)
}

/// Whether a write under a condition was done.
fn done(replies: Vec<Result<Reply>>) -> Result<bool> {
    match one(replies)? {
        Reply::Value(Value::Simple(_)) => Ok(true),
        Reply::Value(Value::Null) => Ok(false),
        Reply::Item(ItemOutcome::NotNumber, ..) => Err(Error::before(ErrorKind::Command, "ERR not a number")),
        Reply::Item(outcome, ..) => Ok(matches!(outcome, ItemOutcome::Done | ItemOutcome::Created)),
        other => Err(Error::strange(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_the_reply_that_leaves_most_in_doubt_speaks_for_all() {
        let ok = || Ok(Reply::Value(Value::OK));
        let refused = || Err(Error::of_line(b"BUSY nothing was done"));
        let doubtful = || Err(Error::of_line(b"NOQUORUM too few took it, applied: unknown"));
        let strange = || Err(Error::strange("nonsense"));
        let told = |replies: &[Result<Reply>]| all(replies).map_err(|error| (error.kind(), error.applied()));
        use Applied::{No, Unknown, Yes};
        assert_eq!(told(&[]), Ok(()));
        assert_eq!(told(&[ok(), ok()]), Ok(()));
        for (replies, kind, applied) in [
            (vec![refused(), refused()], ErrorKind::Busy, No),
            (vec![refused(), ok()], ErrorKind::Busy, Unknown),
            (vec![refused(), doubtful()], ErrorKind::NoQuorum, Unknown),
            (vec![refused(), strange()], ErrorKind::Busy, Unknown),
            (vec![strange(), refused()], ErrorKind::Busy, Unknown),
            (vec![strange(), doubtful(), ok()], ErrorKind::NoQuorum, Unknown),
            (vec![strange(), ok()], ErrorKind::Protocol, Yes),
        ] {
            assert_eq!(told(&replies), Err((kind, applied)), "{replies:?}");
        }
    }
}
