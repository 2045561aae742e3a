//! `/v1/kv/{key}`: a key read, stored and deleted over HTTP, on conditions if the client wants. What conditions mean for a change is compared
//! in the store, in the same step as the change, so they hold as `SET IFEQ` does. Never holds a connection. Tested in `tests.rs`.

use std::time::Duration;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;

use super::body::Room;
use super::condition::{OfRead, Requires, Verdict, etag, of_change};
use super::query::{self, Query};
use super::refusal::Refusal;
use crate::actors::connection::{Outside, Wanted};
use crate::actors::handles::Handles;
use crate::base::counters::Counter;
use crate::base::hlc::Version;
use crate::base::item::{ItemAct, ItemOutcome, ItemTerms, Mode, Only, TERMS_BYTES_MAX};
use crate::base::level::Level;
use crate::base::op::{Act, Deadline, Expiry, Op};
use crate::base::reply::Wire;
use crate::config::quantity::parse_duration;
use crate::protocol::item::{Answer, Item};
use crate::protocol::resp::encode::ReplyBuf;

/// What paths of keys begin with.
pub(super) const PREFIX: &str = "/v1/kv/";
/// Milliseconds that a value is kept.
const TTL_HEADER: &str = "trellis-ttl-ms";

/// The level that a request names, or the node's.
pub(super) fn level(query: &Query, handles: &Handles) -> Result<Level, Refusal> {
    let named = query.read("consistency", "one, quorum or all", |text| text.parse().ok())?;
    Ok(named.unwrap_or(handles.settings.consistency))
}

fn key(request: &HttpRequest) -> Result<Bytes, Refusal> {
    query::key(request.uri().path().strip_prefix(PREFIX).unwrap_or_default())
}

/// Counts what is refused before any actor hears of it.
pub(super) fn counted<T>(handles: &Handles, done: Result<T, Refusal>) -> Result<T, Refusal> {
    if let Err(refusal) = &done {
        match refusal {
            Refusal::Busy => handles.note(Counter::Busy),
            refusal if refusal.is_refused_at_the_door() => handles.note(Counter::HttpRefused),
            _ => {}
        }
    }
    done
}

/// One operation on an item, under a level.
struct Asked {
    name: &'static str,
    op: Op,
    level: Level,
}

impl Asked {
    async fn send(self, handles: &Handles) -> Result<ReplyBuf, Refusal> {
        let key = self.op.key.clone();
        let request = Outside { wanted: Wanted::Key(self.op), name: self.name, wire: Wire::Item, level: self.level };
        handles.ask(&key, request).await.map_err(|_| Refusal::Gone)
    }
}

/// The item of a reply; `None` where there is none.
fn item(reply: &ReplyBuf) -> Result<Option<Item<'_>>, Refusal> {
    match reply.answer(0) {
        Answer::Item(item) => Ok(Some(item)),
        Answer::Null => Ok(None),
        Answer::Error(text) => Err(Refusal::Node(String::from_utf8_lossy(text).into_owned())),
        Answer::Ok | Answer::Int(_) | Answer::Strange => Err(Refusal::Node("ERR a reply of another kind".into())),
    }
}

/// `GET` and `HEAD`.
pub(super) async fn read(
    handles: web::Data<Handles>,
    room: web::Data<Room>,
    request: HttpRequest,
) -> Result<HttpResponse, Refusal> {
    let done = read_item(&handles, &room, &request).await;
    counted(&handles, done)
}

async fn read_item(handles: &Handles, room: &Room, request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    let key = key(request)?;
    let query = Query::parse(request.query_string(), &["consistency"])?;
    let (level, asks) = (level(&query, handles)?, OfRead::of(request.headers())?);
    room.check()?;
    let op = Op::new(key, Act::Item(ItemAct::Read));
    let reply = Asked { name: "http_get", op, level }.send(handles).await?;
    let Some(found) = item(&reply)? else { return Err(Refusal::NoKey) };
    let mut response = match asks.judge(found.version) {
        Verdict::Tell => HttpResponse::Ok(),
        Verdict::Known => HttpResponse::NotModified(),
        Verdict::Differs => return Err(Refusal::Condition),
    };
    response.insert_header((ETAG, etag(found.version))).insert_header((CACHE_CONTROL, "no-cache"));
    if let Some(ttl_ms) = found.ttl_ms {
        response.insert_header((TTL_HEADER, ttl_ms));
    }
    if asks.judge(found.version) == Verdict::Known {
        return Ok(response.finish());
    }
    let value = found.value.map(|value| value.into_bytes()).unwrap_or_default();
    // A value may be a page with a script in it, and must not become one of ours.
    response.insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff")).content_type("application/octet-stream");
    Ok(response.body(room.body(value)))
}

/// `PUT`.
pub(super) async fn store(
    handles: web::Data<Handles>,
    room: web::Data<Room>,
    request: HttpRequest,
    body: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let done = store_item(&handles, &room, &request, body).await;
    counted(&handles, done)
}

async fn store_item(
    handles: &Handles,
    room: &Room,
    request: &HttpRequest,
    body: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let since = handles.clock.monotonic();
    let key = key(request)?;
    let query = Query::parse(request.query_string(), &["ttl", "consistency"])?;
    let level = level(&query, handles)?;
    let ttl = query.read("ttl", "a time above 0 such as 500ms, 60s, 10m or 2h", |text| {
        let ms = parse_duration(text).filter(|ttl| *ttl > Duration::ZERO)?.as_millis();
        // As far as Redis's deadlines go.
        let ms = i64::try_from(ms).ok()?;
        ms.checked_add(i64::try_from(handles.clock.unix_ms()).ok()?).and(Some(ms))
    })?;
    let requires = of_change(request.headers())?;
    let announced = plain_length(request.headers())?;
    let (data, share) = room.read(body, announced, handles.settings.value_bytes_max, since).await?;
    let expiry = ttl.map_or(Expiry::Clear, |ms| Expiry::Until(Deadline::In(ms)));
    let terms = ItemTerms { expiry, ..ItemTerms::default() };
    let change = Change { name: "http_put", act: ItemAct::Store, key, data, terms, level };
    let (outcome, version) = change.send(requires, handles).await?;
    drop(share);
    match outcome {
        ItemOutcome::Created => Ok(HttpResponse::Created().insert_header((ETAG, etag(version))).finish()),
        ItemOutcome::Done => Ok(HttpResponse::NoContent().insert_header((ETAG, etag(version))).finish()),
        _ => Err(Refusal::Condition),
    }
}

/// The length of a body as it was announced, if it is a whole value as it is.
fn plain_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Refusal::malformed("a value is stored whole: send no Content-Range"));
    }
    if headers.get_all(CONTENT_ENCODING).any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::Encoded);
    }
    Ok(headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()))
}

/// `DELETE`.
pub(super) async fn delete(handles: web::Data<Handles>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let done = delete_item(&handles, &request).await;
    counted(&handles, done)
}

async fn delete_item(handles: &Handles, request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    let key = key(request)?;
    let query = Query::parse(request.query_string(), &["consistency"])?;
    let level = level(&query, handles)?;
    let requires = match of_change(request.headers())? {
        // Who deletes wants something to be there: nothing less is said by `*`.
        Requires::Mode(Mode::Replace) => Requires::Nothing,
        Requires::Mode(_) => return Err(Refusal::malformed("nothing can be deleted where nothing is")),
        requires => requires,
    };
    let (act, terms) = (ItemAct::Remove, ItemTerms::default());
    let change = Change { name: "http_delete", act, key, data: Vec::new(), terms, level };
    match change.send(requires, handles).await?.0 {
        ItemOutcome::Done => Ok(HttpResponse::NoContent().finish()),
        ItemOutcome::Missing => Err(Refusal::NoKey),
        _ => Err(Refusal::Condition),
    }
}

/// A change of one key.
struct Change {
    name: &'static str,
    act: ItemAct,
    key: Bytes,
    data: Vec<u8>,
    terms: ItemTerms,
    level: Level,
}

impl Change {
    /// Has it made if the key is as required. What came of it, and the version of the key afterwards.
    ///
    /// Where one of several versions is required, they are tried one after the other: who is refused is told which it is. A key never
    /// has a version twice, so there are no more tries than versions.
    async fn send(mut self, requires: Requires, handles: &Handles) -> Result<(ItemOutcome, Version), Refusal> {
        let mut versions = match requires {
            Requires::Nothing => Vec::new(),
            Requires::Mode(mode) => {
                self.terms.mode = mode;
                Vec::new()
            }
            // Nothing has no version. A version that nobody stamps has the store tell whether the key is missing.
            Requires::OneOf(versions) if versions.is_empty() => vec![Version::ZERO],
            Requires::OneOf(versions) => versions,
        };
        self.terms.only = versions.pop().map(Only::Version);
        let length = self.data.len();
        let mut value = std::mem::take(&mut self.data);
        loop {
            self.terms.append_to(&mut value);
            // What it grew by while it arrived is not to be kept with it.
            value.shrink_to_fit();
            let value_sent = Bytes::from(value);
            let op = Op { key: self.key.clone(), act: Act::Item(self.act), value: value_sent.clone() };
            let reply = Asked { name: self.name, op, level: self.level }.send(handles).await?;
            let Some(found) = item(&reply)? else { return Err(Refusal::NoKey) };
            let named = versions.iter().position(|version| *version == found.version);
            match (found.outcome, named) {
                (ItemOutcome::Differs, Some(at)) => {
                    self.terms.only = Some(Only::Version(versions.swap_remove(at)));
                    value = Vec::with_capacity(length + TERMS_BYTES_MAX);
                    value.extend_from_slice(&value_sent[..length]);
                }
                (outcome, _) => return Ok((outcome, found.version)),
            }
        }
    }
}
