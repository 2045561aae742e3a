//! What one connection has subscribed to: bounds, confirmations, and messages as it is sent them, all as Redis has them. Who else subscribed is
//! in `cluster::pubsub`. Never sends. Tested below.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::encode::{ReplyBuf, bulk, header};
use super::value::Value;
use crate::base::channel::Kind;
use crate::base::limits::{LARGE_VALUE_BYTES, SUBSCRIPTIONS_BYTES_MAX, SUBSCRIPTIONS_MAX};
use crate::base::reply::{ReplyKind, Wire};

const TOO_MANY: &str = "ERR this connection would subscribe to too much, nothing was added";

/// A command about channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PubSubCommand {
    /// `SUBSCRIBE`, `PSUBSCRIBE`, `SSUBSCRIBE`.
    Subscribe(Kind, Vec<Bytes>),
    /// `UNSUBSCRIBE`, `PUNSUBSCRIBE`, `SUNSUBSCRIBE`; of everything where nothing is named.
    Unsubscribe(Kind, Vec<Bytes>),
    /// `PUBLISH`, `SPUBLISH`.
    Publish {
        /// Of the channel.
        kind: Kind,
        /// Where.
        channel: Bytes,
        /// What.
        payload: Bytes,
    },
    /// `PUBSUB CHANNELS`, `PUBSUB SHARDCHANNELS`, of those that match.
    Channels(Kind, Bytes),
    /// `PUBSUB NUMPAT`.
    CountPatterns,
    /// `PUBSUB NUMSUB`, `PUBSUB SHARDNUMSUB`.
    Subscribers(Kind, Vec<Bytes>),
}

impl PubSubCommand {
    /// Whether its answer is a message like any other, which is heard by a client that wants no replies.
    pub fn is_heard(&self) -> bool {
        matches!(self, Self::Subscribe(..) | Self::Unsubscribe(..))
    }
}

/// A message for a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Of the channel.
    pub kind: Kind,
    /// The pattern by which it was subscribed to, if it was by one.
    pub pattern: Option<Bytes>,
    /// Where it was published.
    pub channel: Bytes,
    /// What.
    pub payload: Bytes,
}

impl Pushed {
    /// What it takes until it is written.
    pub fn bytes(&self) -> usize {
        let pattern = self.pattern.as_ref().map_or(0, Bytes::len);
        self.channel.len() + self.payload.len() + pattern + size_of::<Self>()
    }

    /// Appends it, as no reply to anything.
    pub fn put(&self, out: &mut ReplyBuf) {
        let word: &[u8] = match (&self.pattern, self.kind) {
            (Some(_), _) => b"pmessage",
            (None, Kind::Shard) => b"smessage",
            (None, _) => b"message",
        };
        let mut head = Vec::with_capacity(64 + self.channel.len());
        open(&mut head, out.wire(), if self.pattern.is_some() { 4 } else { 3 });
        bulk(&mut head, word);
        if let Some(pattern) = &self.pattern {
            bulk(&mut head, pattern);
        }
        bulk(&mut head, &self.channel);
        if self.payload.len() < LARGE_VALUE_BYTES {
            bulk(&mut head, &self.payload);
            return out.write(&head);
        }
        header(&mut head, b'$', self.payload.len());
        out.write(&head);
        out.write_shared(self.payload.clone());
        out.write(b"\r\n");
    }
}

fn open(out: &mut Vec<u8>, wire: Wire, len: usize) {
    header(out, if wire == Wire::Resp2 { b'*' } else { b'>' }, len);
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Subscriptions {
    names: [BTreeSet<Bytes>; 3],
    bytes: usize,
}

impl Subscriptions {
    /// How many there are, by kind.
    pub fn counts(&self) -> [usize; 3] {
        self.names.each_ref().map(BTreeSet::len)
    }

    /// Bytes of all names.
    pub fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Those of `names` that it has not subscribed to, each once, as copies of their own: an argument shares its batch's buffer.
    ///
    /// # Errors
    /// The text for the client, if they would be too many; nothing has changed.
    pub fn news(&self, kind: Kind, names: &[Bytes]) -> Result<Vec<Bytes>, &'static str> {
        let known = &self.names[kind as usize];
        let news: BTreeSet<&Bytes> = names.iter().filter(|name| !known.contains(*name)).collect();
        let count: usize = self.counts().iter().sum::<usize>() + news.len();
        let bytes = self.bytes + news.iter().map(|name| name.len()).sum::<usize>();
        if count > SUBSCRIPTIONS_MAX || bytes > SUBSCRIPTIONS_BYTES_MAX {
            return Err(TOO_MANY);
        }
        Ok(news.into_iter().map(|name| Bytes::copy_from_slice(name)).collect())
    }

    /// Subscribes to `news` among `names` and appends a confirmation of each of `names`: together one reply.
    pub fn subscribe(&mut self, kind: Kind, names: &[Bytes], news: Vec<Bytes>, out: &mut ReplyBuf) {
        let news: BTreeSet<Bytes> = news.into_iter().collect();
        let mut told = Vec::new();
        for name in names {
            if let Some(new) = news.get(name)
                && self.names[kind as usize].insert(new.clone())
            {
                self.bytes += name.len();
            }
            self.confirm(
                ["subscribe", "psubscribe", "ssubscribe"][kind as usize],
                kind,
                Some(name),
                out.wire(),
                &mut told,
            );
        }
        out.push_encoded(told.into(), ReplyKind::Value);
    }

    /// Those of `names` that it has subscribed to; all of them where none is named.
    pub fn known(&self, kind: Kind, names: &[Bytes]) -> Vec<Bytes> {
        let known = &self.names[kind as usize];
        if names.is_empty() {
            known.iter().cloned().collect()
        } else {
            names.iter().filter_map(|name| known.get(name)).cloned().collect()
        }
    }

    /// Ends what it has subscribed to of `names`, or all, and appends a confirmation of each, or that there was none: together one reply.
    pub fn unsubscribe(&mut self, kind: Kind, names: &[Bytes], out: &mut ReplyBuf) {
        let all = if names.is_empty() { self.known(kind, names) } else { Vec::new() };
        let names = if names.is_empty() { &all } else { names };
        let verb = ["unsubscribe", "punsubscribe", "sunsubscribe"][kind as usize];
        let mut told = Vec::new();
        for name in names {
            if self.names[kind as usize].remove(name) {
                self.bytes -= name.len();
            }
            self.confirm(verb, kind, Some(name), out.wire(), &mut told);
        }
        if names.is_empty() {
            self.confirm(verb, kind, None, out.wire(), &mut told);
        }
        out.push_encoded(told.into(), ReplyKind::Value);
    }

    /// Channels and patterns are counted together, those of `SSUBSCRIBE` apart.
    fn confirm(&self, verb: &'static str, kind: Kind, name: Option<&Bytes>, wire: Wire, out: &mut Vec<u8>) {
        let [channels, patterns, shards] = self.counts();
        let count = if kind == Kind::Shard { shards } else { channels + patterns };
        let name = name.map_or(Value::Null, |name| Value::Bulk(name.clone()));
        Value::Push(vec![Value::bulk(verb), name, Value::Int(count as i64)]).encode(wire, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;

    fn text(mut out: ReplyBuf) -> String {
        String::from_utf8(out.copy_to_bytes(out.remaining()).to_vec()).unwrap().replace("\r\n", " ")
    }

    fn names(words: &'static str) -> Vec<Bytes> {
        words.split_whitespace().map(Bytes::from).collect()
    }

    fn subscribe(own: &mut Subscriptions, kind: Kind, words: &'static str) -> String {
        let (names, mut out) = (names(words), ReplyBuf::new(Wire::Resp2));
        let news = own.news(kind, &names).unwrap();
        own.subscribe(kind, &names, news, &mut out);
        assert_eq!(out.replies(), 1);
        text(out)
    }

    fn unsubscribe(own: &mut Subscriptions, kind: Kind, words: &'static str) -> String {
        let mut out = ReplyBuf::new(Wire::Resp3);
        own.unsubscribe(kind, &names(words), &mut out);
        assert_eq!(out.replies(), 1);
        text(out)
    }

    #[test]
    fn confirmations_are_those_of_redis() {
        let mut own = Subscriptions::default();
        assert_eq!(
            subscribe(&mut own, Kind::Channel, "a b a"),
            "*3 $9 subscribe $1 a :1 *3 $9 subscribe $1 b :2 *3 $9 subscribe $1 a :2 "
        );
        assert_eq!(subscribe(&mut own, Kind::Pattern, "a"), "*3 $10 psubscribe $1 a :3 ");
        assert_eq!(subscribe(&mut own, Kind::Shard, "a"), "*3 $10 ssubscribe $1 a :1 ");
        assert_eq!((own.counts(), own.held_bytes()), ([2, 1, 1], 4));
        assert_eq!(
            unsubscribe(&mut own, Kind::Channel, "z a"),
            ">3 $11 unsubscribe $1 z :3 >3 $11 unsubscribe $1 a :2 "
        );
        assert_eq!(unsubscribe(&mut own, Kind::Channel, ""), ">3 $11 unsubscribe $1 b :1 ");
        assert_eq!(unsubscribe(&mut own, Kind::Channel, ""), ">3 $11 unsubscribe _ :1 ");
        assert_eq!(unsubscribe(&mut own, Kind::Shard, ""), ">3 $12 sunsubscribe $1 a :0 ");
        assert_eq!(own.held_bytes(), 1);
    }

    #[test]
    fn too_many_names_are_refused_and_none_is_added() {
        let mut own = Subscriptions::default();
        let many: Vec<Bytes> = (0..SUBSCRIPTIONS_MAX).map(|n| Bytes::from(n.to_string())).collect();
        let news = own.news(Kind::Channel, &many).unwrap();
        own.subscribe(Kind::Channel, &many, news, &mut ReplyBuf::new(Wire::Resp2));
        assert_eq!(own.news(Kind::Pattern, &names("one")), Err(TOO_MANY));
        assert_eq!(own.news(Kind::Channel, &many), Ok(vec![]));
        let long = [Bytes::from(vec![b'x'; SUBSCRIPTIONS_BYTES_MAX + 1])];
        assert_eq!(Subscriptions::default().news(Kind::Channel, &long), Err(TOO_MANY));
    }

    #[test]
    fn messages_look_as_in_redis_and_large_ones_are_shared() {
        let pushed = |kind, pattern: Option<&'static str>, payload: Bytes| Pushed {
            kind,
            pattern: pattern.map(Bytes::from),
            channel: "c".into(),
            payload,
        };
        let shown = |wire, pushed: Pushed| {
            let mut out = ReplyBuf::new(wire);
            pushed.put(&mut out);
            assert_eq!(out.replies(), 0);
            text(out)
        };
        assert_eq!(shown(Wire::Resp2, pushed(Kind::Channel, None, "hi".into())), "*3 $7 message $1 c $2 hi ");
        assert_eq!(shown(Wire::Resp3, pushed(Kind::Shard, None, "hi".into())), ">3 $8 smessage $1 c $2 hi ");
        assert_eq!(shown(Wire::Resp3, pushed(Kind::Channel, Some("*"), "".into())), ">4 $8 pmessage $1 * $1 c $0  ");
        let large = pushed(Kind::Channel, None, vec![b'x'; LARGE_VALUE_BYTES].into());
        let text = shown(Wire::Resp2, large);
        assert!(text.starts_with("*3 $7 message $1 c $32768 xxx") && text.ends_with("xxx "));
    }
}
