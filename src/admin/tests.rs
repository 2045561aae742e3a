//! The routes over a node in this process, and `openapi.json` against them, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::body::{MessageBody, to_bytes};
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, web};
use serde_json::Value as Json;

use super::*;
use crate::actors::clock::Clock;
use crate::actors::node::{self, World};
use crate::base::limits::OUTBOX_BYTES_MAX;
use crate::config::{Config, Settings};
use crate::net::Net;

/// An answer, as far as tests look at it.
#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn json(&self) -> Json {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Status and code of an error of which nothing was done.
    fn refused(&self) -> (u16, String) {
        let error = &self.json()["error"];
        assert!(error["applied"] == "no" && error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        (self.status, error["code"].as_str().expect("a code").to_owned())
    }
}

/// Asks a service for `line`, a method and a URL, with these headers.
async fn ask<F, A, B>(service: &F, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer
where
    F: Fn(TestRequest) -> A,
    A: Future<Output = Result<ServiceResponse<B>, actix_web::Error>>,
    B: MessageBody,
{
    let (method, url) = line.split_once(' ').expect("a method and a URL");
    let mut request = TestRequest::with_uri(url).method(method.parse::<Method>().expect("a method"));
    for (name, value) in headers {
        request = request.append_header((*name, *value));
    }
    let answer = service(request.set_payload(body.to_vec())).await.expect("an answer");
    let status = answer.status().as_u16();
    let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
    let headers = answer.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let body = to_bytes(answer.into_body()).await.ok().expect("a body").to_vec();
    Answer { status, headers, body }
}

/// Runs `$test` with `$service`, the routes of a node of these settings.
macro_rules! with_node {
    ($settings:expr, $service:ident, $test:block) => {
        node::block_on(async {
            let settings = Settings { port: Some("0".into()), ..$settings };
            let config = Config::new(&settings, 1).expect("settings");
            let bound = node::bind(&config, Net::Os).await.expect("a free port");
            let clock = Clock::os();
            let (outbox_bytes_max, rounds) = (OUTBOX_BYTES_MAX, true);
            let world = World { net: Net::Os, clock, seed: 1, outbox_bytes_max, rounds, threads: false };
            let node = node::start(bound, &config, world, None).await.expect("a node");
            let handles = web::Data::new(node.handles.clone());
            let app = init_service(App::new().app_data(handles).configure(routes)).await;
            let $service = |request: TestRequest| app.call(request.to_request());
            $test
        })
    };
}

#[test]
fn a_key_is_stored_read_and_deleted() {
    with_node!(Settings::default(), node, {
        assert_eq!(ask(&node, "GET /v1/kv/a", &[], b"").await.refused(), (404, "not_found".into()));
        let made = ask(&node, "PUT /v1/kv/a?ttl=60s&consistency=ONE", &[], b"\0\xff\r\n").await;
        assert_eq!((made.status, made.body.len()), (201, 0));
        let read = ask(&node, "GET /v1/kv/a", &[], b"").await;
        assert_eq!((read.status, &read.body[..]), (200, &b"\0\xff\r\n"[..]));
        assert_eq!(read.header("etag"), made.header("etag"));
        assert_eq!(read.header("content-type"), "application/octet-stream");
        assert_eq!(read.header("x-content-type-options"), "nosniff");
        let ttl: u64 = read.header("trellis-ttl-ms").parse().expect("a number");
        assert!((50_000..=60_000).contains(&ttl), "{ttl}");
        let replaced = ask(&node, "PUT /v1/kv/a", &[], b"").await;
        assert!(replaced.status == 204 && replaced.header("etag") != made.header("etag"));
        let head = ask(&node, "HEAD /v1/kv/a", &[], b"").await;
        assert_eq!((head.status, head.header("trellis-ttl-ms")), (200, ""));
        assert_eq!(ask(&node, "DELETE /v1/kv/a", &[], b"").await.status, 204);
        assert_eq!(ask(&node, "DELETE /v1/kv/a", &[], b"").await.refused().0, 404);
        assert_eq!(ask(&node, "HEAD /v1/kv/a", &[], b"").await.status, 404);
    });
}

#[test]
fn keys_are_any_bytes() {
    with_node!(Settings::default(), node, {
        for (path, other) in
            [("a%2Fb", "a/b"), ("%0A%0d%00", "%0a%0D%00"), ("%ff%FE", "%FF%fe"), ("a+b", "a%2Bb"), ("%2e%2e", "..")]
        {
            assert_eq!(ask(&node, &format!("PUT /v1/kv/{path}"), &[], path.as_bytes()).await.status, 201, "{path}");
            assert_eq!(ask(&node, &format!("GET /v1/kv/{other}"), &[], b"").await.body, path.as_bytes(), "{path}");
        }
        for bad in ["", "%zz", "%4", "a%"] {
            assert_eq!(ask(&node, &format!("PUT /v1/kv/{bad}"), &[], b"").await.refused().0, 400, "{bad}");
        }
        let long = format!("/v1/kv/{}", "k".repeat(65_000));
        assert_eq!(ask(&node, &format!("PUT {long}"), &[], b"long").await.status, 201);
        assert_eq!(ask(&node, &format!("GET {long}"), &[], b"").await.body, b"long");
    });
}

#[test]
fn what_makes_no_sense_is_refused_and_counted() {
    with_node!(Settings { max_value_size: Some("64kb".into()), ..Settings::default() }, node, {
        let lines = [
            "GET /v1/kv/a?ttl=1s",
            "GET /v1/kv/a?consistency=two",
            "GET /v1/kv/a?consistency=",
            "PUT /v1/kv/a?ttl=60",
            "PUT /v1/kv/a?ttl=0s",
            "PUT /v1/kv/a?ttl=",
            "PUT /v1/kv/a?ttl=-1s",
            "PUT /v1/kv/a?ttl=9000000000000h",
            "PUT /v1/kv/a?ttl=9223372036854775807ms",
            "PUT /v1/kv/a?ttl=1s&ttl=2s",
            "DELETE /v1/kv/a?x",
            "GET /v1/kv?limit=0",
            "GET /v1/kv?limit=10001",
            "GET /v1/kv?limit=-1",
            "GET /v1/kv?cursor=x",
            "GET /v1/kv?cursor=10000000000000000",
            "GET /v1/kv?prefix=%",
        ];
        for line in lines {
            assert_eq!(ask(&node, line, &[], b"x").await.refused(), (400, "bad_request".into()), "{line}");
        }
        let headers = [
            ("if-match", "x", 400),
            ("if-none-match", "\"1-1\"", 400),
            ("content-range", "bytes 0-1/2", 400),
            ("content-encoding", "gzip", 415),
        ];
        for (name, value, status) in headers {
            assert_eq!(ask(&node, "PUT /v1/kv/a", &[(name, value)], b"x").await.refused().0, status, "{name}");
        }
        let most = vec![7; 64 * 1024];
        assert_eq!(ask(&node, "PUT /v1/kv/b", &[], &most).await.status, 201);
        assert_eq!(ask(&node, "GET /v1/kv/b", &[], b"").await.body, most);
        let more = [&most[..], b"x"].concat();
        assert_eq!(ask(&node, "PUT /v1/kv/b", &[], &more).await.refused(), (413, "too_large".into()));
        assert_eq!(ask(&node, "GET /v1/kv/a", &[], b"").await.status, 404, "nothing was stored");
        let refused = format!("trellis_http_requests_refused_total {}\n", lines.len() + headers.len() + 1);
        let metrics = ask(&node, "GET /metrics", &[], b"").await;
        assert!(String::from_utf8_lossy(&metrics.body).contains(&refused), "{refused}");
    });
}

#[test]
fn conditions_hold_or_nothing_is_done() {
    with_node!(Settings::default(), node, {
        let put = async |name: &str, tag: &str, value: &str| {
            let headers: &[(&str, &str)] = if name.is_empty() { &[] } else { &[(name, tag)] };
            ask(&node, "PUT /v1/kv/a", headers, value.as_bytes()).await
        };
        for tag in ["*", "\"1-1\"", "W/\"1-1\""] {
            assert_eq!(put("if-match", tag, "0").await.refused(), (412, "precondition_failed".into()), "{tag}");
        }
        let first = put("if-none-match", "*", "1").await;
        assert_eq!((first.status, put("if-none-match", "*", "2").await.status), (201, 412));
        let first = first.header("etag").to_owned();
        let second = put("if-match", &first, "2").await;
        assert_eq!((second.status, put("if-match", &first, "3").await.status), (204, 412));
        let second = second.header("etag").to_owned();
        assert_eq!(put("if-match", &format!("W/{second}"), "3").await.status, 412);
        let third = put("if-match", &format!("{second}, {first}, \"x\""), "3").await;
        assert_eq!((third.status, put("if-match", "*", "4").await.status), (204, 204));
        assert_eq!(ask(&node, "GET /v1/kv/a", &[], b"").await.body, b"4");

        let now = ask(&node, "HEAD /v1/kv/a", &[], b"").await.header("etag").to_owned();
        let get = async |name: &str, tag: &str| ask(&node, "GET /v1/kv/a", &[(name, tag)], b"").await;
        let known = get("if-none-match", &format!("\"1-1\", W/{now}")).await;
        assert_eq!((known.status, known.header("etag"), known.body.len()), (304, now.as_str(), 0));
        assert_eq!((get("if-none-match", "*").await.status, get("if-none-match", &first).await.status), (304, 200));
        assert_eq!((get("if-match", &first).await.status, get("if-match", &now).await.status), (412, 200));

        let delete = async |headers: &[(&str, &str)]| ask(&node, "DELETE /v1/kv/a", headers, b"").await.status;
        assert_eq!(delete(&[("if-match", &first)]).await, 412);
        assert_eq!(delete(&[("if-match", "W/\"1-1\"")]).await, 412);
        assert_eq!(delete(&[("if-none-match", "*")]).await, 400);
        assert_eq!(delete(&[("if-match", &first), ("if-match", &now)]).await, 204);
        assert_eq!((delete(&[("if-match", &now)]).await, delete(&[("if-match", "*")]).await), (404, 404));
    });
}

/// All keys as `query` lists them, page by page, and the largest page.
async fn listed<F, A, B>(service: &F, query: &str) -> (Vec<Json>, usize)
where
    F: Fn(TestRequest) -> A,
    A: Future<Output = Result<ServiceResponse<B>, actix_web::Error>>,
    B: MessageBody,
{
    let (mut keys, mut cursor, mut largest) = (Vec::new(), String::new(), 0);
    loop {
        let page = ask(service, &format!("GET /v1/kv?{query}&cursor={cursor}"), &[], b"").await;
        assert_eq!(page.status, 200);
        let page = page.json();
        let found = page["keys"].as_array().expect("keys");
        largest = largest.max(found.len());
        keys.extend(found.iter().cloned());
        match page["cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return (keys, largest),
        }
    }
}

#[test]
fn keys_are_listed_once_each_in_pages_of_the_limit() {
    with_node!(Settings::default(), node, {
        let empty = ask(&node, "GET /v1/kv?prefix=&cursor=&limit=", &[], b"").await.json();
        assert_eq!(empty, serde_json::json!({ "keys": [], "cursor": null }));
        // Keys of one hash tag are of one partition, whose order is finer.
        let names = (0..150).map(|n| format!("k{n}")).chain((0..150).map(|n| format!("%7Bt%7D{n}")));
        for name in names {
            assert_eq!(ask(&node, &format!("PUT /v1/kv/{name}"), &[], b"").await.status, 201);
        }
        assert_eq!(ask(&node, "PUT /v1/kv/%ff%2A", &[], b"").await.status, 201);
        for limit in [1, 7, 100, 301, 10_000] {
            let (keys, largest) = listed(&node, &format!("limit={limit}")).await;
            let paths: BTreeSet<&str> = keys.iter().filter_map(|key| key["path"].as_str()).collect();
            assert_eq!((keys.len(), paths.len(), largest), (301, 301, limit.min(301)), "{limit}");
        }
        for (prefix, count) in [("k", 150), ("k1", 61), ("%7Bt%7D1", 61), ("%7bt%7D149", 1), ("*", 0), ("no", 0)] {
            assert_eq!(listed(&node, &format!("prefix={prefix}&limit=40")).await.0.len(), count, "{prefix}");
        }
        let (odd, _) = listed(&node, "prefix=%FF").await;
        assert_eq!(odd, [serde_json::json!({ "key": null, "path": "/v1/kv/%FF%2A" })]);
        assert_eq!(ask(&node, "DELETE /v1/kv/%FF%2A", &[], b"").await.status, 204);
    });
}

#[test]
fn a_full_node_and_one_without_a_majority_say_what_was_done() {
    let small = Settings { max_memory: Some("1mb".into()), eviction: Some("none".into()), ..Settings::default() };
    with_node!(small, node, {
        let large = vec![0; 2 << 20];
        assert_eq!(ask(&node, "PUT /v1/kv/a", &[], &large).await.refused(), (507, "out_of_memory".into()));
        assert_eq!(ask(&node, "PUT /v1/kv/a", &[], b"x").await.status, 201);
    });
    // Nobody answers there: the node knows that it is not the whole cluster.
    let alone = Settings { seeds: Some(vec!["127.0.0.1:1".into()]), ..Settings::default() };
    with_node!(alone, node, {
        for line in
            ["PUT /v1/kv/a?consistency=quorum", "GET /v1/kv/a?consistency=all", "DELETE /v1/kv/a?consistency=quorum"]
        {
            assert_eq!(ask(&node, line, &[], b"x").await.refused(), (503, "no_quorum".into()), "{line}");
        }
        assert_eq!(ask(&node, "PUT /v1/kv/a?consistency=one", &[], b"x").await.status, 201);
    });
}

#[test]
fn pages_say_which_methods_they_have() {
    with_node!(Settings::default(), node, {
        let wrong = ask(&node, "PATCH /v1/kv/a", &[], b"").await;
        assert_eq!((wrong.refused().0, wrong.header("allow")), (405, "GET, HEAD, PUT, DELETE"));
        let wrong = ask(&node, "GET /v1/members/n/forget", &[], b"").await;
        assert_eq!((wrong.refused().0, wrong.header("allow")), (405, "POST"));
        assert_eq!(ask(&node, "GET /v1/nothing", &[], b"").await.refused(), (404, "not_found".into()));
    });
}

/// The paths of a served page, as OpenAPI has them.
fn template(path: &str) -> String {
    path.replace(":.*}", "}")
}

#[test]
fn every_route_is_in_the_document_and_every_route_of_the_document_is_served() {
    let document: Json = serde_json::from_str(OPENAPI).expect("JSON");
    let methods = ["get", "head", "put", "post", "delete", "patch", "options", "trace"];
    let paths = document["paths"].as_object().expect("paths").iter();
    let told: BTreeSet<(String, String)> = paths
        .flat_map(|(path, page)| {
            let found = page.as_object().expect("a page").keys().filter(|name| methods.contains(&name.as_str()));
            found.map(|method| (path.clone(), method.to_uppercase())).collect::<Vec<_>>()
        })
        .collect();
    let of_page = |page: Page| {
        page.routes.into_iter().map(move |(method, _)| (template(page.path), method.to_string())).collect::<Vec<_>>()
    };
    let served: BTreeSet<(String, String)> = pages().into_iter().flat_map(of_page).collect();
    assert_eq!(told, served);
    with_node!(Settings::default(), node, {
        for (path, method) in &told {
            let path = path.replace("{key}", "nobody").replace("{id}", "nobody");
            let answer = ask(&node, &format!("{method} {path}"), &[], b"").await;
            assert!(answer.status != 405, "{method} {path}: {answer:?}");
            let is_missing = answer.status == 404 && answer.body.ends_with(b"no such page\"}}");
            assert!(!is_missing, "{method} {path}: {answer:?}");
        }
        assert_eq!(ask(&node, "GET /openapi.json", &[], b"").await.json(), document);
    });
}

#[test]
fn the_document_refers_to_what_it_has() {
    let document: Json = serde_json::from_str(OPENAPI).expect("JSON");
    let mut left = vec![&document];
    let mut named = BTreeSet::new();
    while let Some(value) = left.pop() {
        if let Some(to) = value.get("$ref").and_then(Json::as_str) {
            assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to}");
            named.insert(to.to_owned());
        }
        left.extend(value.as_object().into_iter().flat_map(|object| object.values()));
        left.extend(value.as_array().into_iter().flatten());
    }
    let components = document["components"].as_object().expect("components").iter();
    let defined: BTreeSet<String> = components
        .flat_map(|(kind, all)| {
            all.as_object().expect("by name").keys().map(move |name| format!("#/components/{kind}/{name}"))
        })
        .collect();
    assert_eq!(named, defined);
}
