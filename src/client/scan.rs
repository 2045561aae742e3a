//! All keys of the cluster, page by page. Never keeps more than a page. Exercised by `tests/client.rs`.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream::{self, Stream};

use crate::protocol::resp::value::Value;

use super::error::Error;
use super::requests::Asked;
use super::{Client, Result};

/// About how many keys a page has.
const PAGE_KEYS: &str = "1000";

/// Where a scan is.
struct Place {
    /// What to ask next; `None` when there is no more.
    cursor: Option<Bytes>,
    page: VecDeque<Bytes>,
}

impl Client {
    /// The keys that match a Redis glob, `*` for all, in no order. A key that is there throughout comes at least once, and more than once
    /// if the cluster changes meanwhile.
    pub fn scan<P: AsRef<[u8]>>(&self, pattern: P) -> impl Stream<Item = Result<Bytes>> + Send + use<P> {
        let (client, pattern) = (self.clone(), Bytes::copy_from_slice(pattern.as_ref()));
        let begin = Place { cursor: Some(Bytes::from_static(b"0")), page: VecDeque::new() };
        stream::try_unfold((client, pattern, begin), |(client, pattern, mut place)| async move {
            loop {
                if let Some(key) = place.page.pop_front() {
                    return Ok(Some((key, (client, pattern, place))));
                }
                let Some(cursor) = place.cursor.take() else { return Ok(None) };
                place = client.page(cursor, &pattern).await?;
            }
        })
    }

    async fn page(&self, cursor: Bytes, pattern: &Bytes) -> Result<Place> {
        let fixed = |text: &'static str| Bytes::from_static(text.as_bytes());
        let args = [fixed("SCAN"), cursor, fixed("MATCH"), pattern.clone(), fixed("COUNT"), fixed(PAGE_KEYS)];
        let page = self.put_to_any(&args, true, Asked::default()).await?;
        let Value::Array(parts) = &page else { return Err(Error::strange(page)) };
        let [Value::Bulk(cursor), Value::Array(keys)] = &parts[..] else { return Err(Error::strange(page)) };
        let key = |key: &Value| if let Value::Bulk(key) = key { Ok(key.clone()) } else { Err(Error::strange(key)) };
        let cursor = (cursor != "0").then(|| cursor.clone());
        Ok(Place { cursor, page: keys.iter().map(key).collect::<Result<_>>()? })
    }
}
