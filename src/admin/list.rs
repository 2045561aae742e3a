//! `GET /v1/kv`: keys, page by page, in the order in which `SCAN` walks. A page ends exactly at its limit, because a walk may go on at any
//! key. Tested below and in `tests.rs`.

use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value as Json, json};

use super::body::Room;
use super::keys::{PREFIX, counted, level};
use super::query::Query;
use super::refusal::Refusal;
use crate::actors::connection::{Outside, Wanted};
use crate::actors::handles::Handles;
use crate::actors::router::cursor_at;
use crate::base::level::Level;
use crate::base::limits::{COMMAND_BYTES_MAX, KEY_BYTES_MAX};
use crate::base::reply::Wire;
use crate::protocol::request::ClusterOp;
use crate::protocol::resp::read::ReplyReader;
use crate::protocol::resp::value::Value;

/// Keys of a page unless the client says otherwise.
const LIMIT_DEFAULT: usize = 1_000;
/// Most keys of a page.
const LIMIT_MAX: usize = 10_000;
/// Bytes of keys after which a page ends, unless the first key has more.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Keys that one step of a search for a prefix looks at, about.
const LOOKED_AT: usize = 4_096;
/// A search that has found too few gives them after this time, so that a client sees it go on.
const SEARCH_MAX: Duration = Duration::from_secs(1);

/// What paths of keys do not encode.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a client asks.
struct Asked {
    /// A glob that the prefix matches, if there is one.
    pattern: Option<Bytes>,
    cursor: u64,
    limit: usize,
    level: Level,
}

impl Asked {
    fn read(request: &HttpRequest, handles: &Handles) -> Result<Self, Refusal> {
        let query = Query::parse(request.query_string(), &["prefix", "cursor", "limit", "consistency"])?;
        let prefix = query.value("prefix");
        if prefix.is_some_and(|prefix| prefix.len() > KEY_BYTES_MAX) {
            return Err(Refusal::LongKey);
        }
        let wanted = format!("a number from 1 to {LIMIT_MAX}");
        let limit = query.read("limit", &wanted, |text| match text {
            "" => Some(LIMIT_DEFAULT),
            text => number(text, 10).and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=LIMIT_MAX).contains(n)),
        })?;
        let cursor = query.read("cursor", "what the page before said, or empty", |text| match text {
            "" => Some(0),
            text => number(text, 16),
        })?;
        Ok(Self {
            pattern: prefix.map(glob),
            cursor: cursor.unwrap_or(0),
            limit: limit.unwrap_or(LIMIT_DEFAULT),
            level: level(&query, handles)?,
        })
    }
}

/// A number of digits alone, in lower case.
fn number(text: &str, radix: u32) -> Option<u64> {
    text.chars()
        .all(|digit| digit.is_digit(radix) && !digit.is_ascii_uppercase())
        .then(|| u64::from_str_radix(text, radix).ok())?
}

/// The pattern that matches what begins with `prefix`.
fn glob(prefix: &[u8]) -> Bytes {
    let mut glob = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        if b"*?[\\".contains(byte) {
            glob.push(b'\\');
        }
        glob.push(*byte);
    }
    glob.push(b'*');
    glob.into()
}

/// `GET`.
pub(super) async fn list(
    handles: web::Data<Handles>,
    room: web::Data<Room>,
    request: HttpRequest,
) -> Result<HttpResponse, Refusal> {
    let listed = page(&handles, &room, &request).await;
    counted(&handles, listed)
}

async fn page(handles: &Handles, room: &Room, request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    let asked = Asked::read(request, handles)?;
    room.check()?;
    let (mut keys, mut cursor) = (Vec::new(), asked.cursor);
    let began = handles.clock.monotonic();
    loop {
        let (next, found) = step(handles, &asked, cursor, asked.limit - keys.len()).await?;
        keys.extend(found);
        cursor = next;
        let bytes: usize = keys.iter().map(Bytes::len).sum();
        let is_full = keys.len() >= asked.limit || bytes >= PAGE_BYTES_MAX;
        if cursor == 0 || is_full || began.elapsed() >= SEARCH_MAX {
            break;
        }
    }
    let next = cut(&mut keys, asked.limit, PAGE_BYTES_MAX, cursor_at).unwrap_or(cursor);
    let cursor = (next != 0).then(|| format!("{next:x}"));
    let keys: Vec<Json> = keys.iter().map(|key| described(key)).collect();
    let body = json!({ "keys": keys, "cursor": cursor }).to_string();
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(room.body(body.into())))
}

/// The next keys of a walk, about as many as are `wanted`, and where it goes on; 0 is its end.
async fn step(handles: &Handles, asked: &Asked, cursor: u64, wanted: usize) -> Result<(u64, Vec<Bytes>), Refusal> {
    let count = if asked.pattern.is_some() { LOOKED_AT.max(wanted) } else { wanted };
    let scan = ClusterOp::Scan { cursor, pattern: asked.pattern.clone(), count: count as u64, nothing: false };
    let request = Outside { wanted: Wanted::Scan(scan), name: "http_list", wire: Wire::Resp3, level: asked.level };
    let reply = handles.ask(b"", request).await.map_err(|_| Refusal::Gone)?;
    let mut encoded = BytesMut::new();
    reply.slices(0..reply.replies()).for_each(|piece| encoded.extend_from_slice(piece));
    let strange = || Refusal::Node("ERR a reply of another kind".into());
    let mut reader = ReplyReader::new(COMMAND_BYTES_MAX);
    match reader.next(&mut encoded).ok().flatten().ok_or_else(strange)? {
        Value::Error(text) => Err(Refusal::Node(String::from_utf8_lossy(&text).into_owned())),
        reply => scanned(reply).ok_or_else(strange),
    }
}

/// The reply to a scan.
fn scanned(reply: Value) -> Option<(u64, Vec<Bytes>)> {
    let bulk = |value| if let Value::Bulk(bytes) = value { Some(bytes) } else { None };
    let Value::Array(parts) = reply else { return None };
    let [cursor, Value::Array(keys)] = <[Value; 2]>::try_from(parts).ok()? else { return None };
    let cursor = std::str::from_utf8(&bulk(cursor)?).ok()?.parse().ok()?;
    Some((cursor, keys.into_iter().map(bulk).collect::<Option<_>>()?))
}

/// Cuts a page at `limit` keys and at `bytes_max`, and says where the walk goes on then. Keys that a cursor can't tell apart stay together;
/// those are more than the limit only if somebody chose them so.
fn cut(keys: &mut Vec<Bytes>, limit: usize, bytes_max: usize, at: impl Fn(&[u8]) -> u64) -> Option<u64> {
    let mut bytes = 0;
    let fit = keys.iter().take(limit).take_while(|key| {
        bytes += key.len();
        bytes <= bytes_max
    });
    let fit = fit.count().max(1);
    let next = at(keys.get(fit)?);
    let before = keys.partition_point(|key| at(key) < next);
    let end = if before > 0 { before } else { keys.partition_point(|key| at(key) <= next) };
    let next = keys.get(end).map(|key| at(key));
    keys.truncate(end);
    next
}

/// A key as JSON: as text if it is any, and as the path that it has, which is unambiguous.
fn described(key: &[u8]) -> Json {
    let path = (!key.is_empty()).then(|| format!("{PREFIX}{}", percent_encode(key, PLAIN)));
    json!({ "key": std::str::from_utf8(key).ok(), "path": path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::glob::matches;
    use proptest::prelude::*;

    #[test]
    fn a_page_is_cut_where_a_cursor_can_go_on() {
        let at = |key: &[u8]| u64::from(key[0]);
        let cut = |keys: &str, limit, bytes| {
            let mut keys: Vec<Bytes> = keys.split(' ').map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
            let next = super::cut(&mut keys, limit, bytes, at);
            (keys.len(), next.map(|next| next as u8 as char))
        };
        assert_eq!(cut("a b c", 3, 9), (3, None));
        assert_eq!(cut("a b c", 2, 9), (2, Some('c')));
        assert_eq!(cut("a b1 b2 c", 2, 99), (1, Some('b')), "those of one place stay together");
        assert_eq!(cut("a1 a2 a3 b", 2, 99), (3, Some('b')), "and are given when nothing else is");
        assert_eq!(cut("a1 a2 a3", 2, 99), (3, None));
        assert_eq!(cut("aaa bbb ccc", 3, 7), (2, Some('c')));
        assert_eq!(cut("aaa bbb ccc", 3, 1), (1, Some('b')), "one key is always given");
    }

    #[test]
    fn a_key_has_text_if_it_is_text_and_always_a_path() {
        assert_eq!(described(b"a/b c"), json!({ "key": "a/b c", "path": "/v1/kv/a%2Fb%20c" }));
        assert_eq!(described(b"\xff."), json!({ "key": null, "path": "/v1/kv/%FF." }));
        assert_eq!(described(b""), json!({ "key": "", "path": null }));
    }

    #[test]
    fn numbers_are_digits_alone() {
        assert_eq!((number("10", 10), number("ff", 16), number("0", 16)), (Some(10), Some(255), Some(0)));
        for bad in ["+1", "-1", "1 ", "٣", "FF", "ffffffffffffffff0"] {
            assert_eq!(number(bad, 16), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_glob_of_a_prefix_matches_what_begins_with_it_and_nothing_else(
            prefix in "[ab*?\\[\\]\\\\^-]{0,6}", text in "[ab*?\\[\\]\\\\^-]{0,8}", rest in ".{0,3}",
        ) {
            let glob = glob(prefix.as_bytes());
            let begins = format!("{prefix}{rest}");
            prop_assert!(matches(&glob, begins.as_bytes()));
            prop_assert_eq!(matches(&glob, text.as_bytes()), text.starts_with(&prefix));
        }

        #[test]
        fn paths_name_their_keys(key in prop::collection::vec(any::<u8>(), 1..40)) {
            let described = described(&key);
            let path = described["path"].as_str().and_then(|path| path.strip_prefix(PREFIX)).expect("a path");
            prop_assert_eq!(super::super::query::key(path).expect("a key"), key);
        }
    }
}
