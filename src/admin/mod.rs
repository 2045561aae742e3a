//! Floor 5, HTTP: actix-web over the same answers that `trellis-cli` gets, the metrics page, and keys for clients that speak nothing else. Never
//! touches an actor but through `Handles`. What is served stands in `openapi.json`, which `tests.rs` compares with the routes here.

mod body;
mod condition;
mod keys;
mod list;
mod metrics;
mod query;
mod refusal;
#[cfg(test)]
mod tests;

use std::io;

use actix_web::dev::ServerHandle;
use actix_web::http::header::{ALLOW, ContentType, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Route, web};
use percent_encoding::percent_decode_str;

use crate::actors::handles::Handles;
use crate::actors::views;
use crate::base::limits::CLIENT_STALL_TIMEOUT;
use crate::net::{PlainListener, end_stalled};

/// One worker is enough for people and scrapers, and fills several data arbiters with requests for keys.
const WORKERS: usize = 1;
/// Connections it takes at a time.
const CONNECTIONS_MAX: usize = 256;
/// Everything below, for programs.
const OPENAPI: &str = include_str!("openapi.json");

/// Serves the admin endpoint on `listener` until the handle stops it.
///
/// # Errors
/// Those of taking the listener over, and of setting it up.
pub fn serve(listener: PlainListener, handles: Handles) -> io::Result<ServerHandle> {
    end_stalled(&listener, CLIENT_STALL_TIMEOUT)?;
    let data = web::Data::new(handles);
    let server = HttpServer::new(move || App::new().app_data(data.clone()).configure(routes))
        .workers(WORKERS)
        .max_connections(CONNECTIONS_MAX)
        .disable_signals()
        .listen(listener)?
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(handle)
}

/// What is served under one path.
struct Page {
    path: &'static str,
    routes: Vec<(Method, Route)>,
}

fn get(path: &'static str, route: Route) -> Page {
    Page { path, routes: vec![(Method::GET, route)] }
}

fn post(path: &'static str, route: Route) -> Page {
    Page { path, routes: vec![(Method::POST, route)] }
}

/// Everything that is served.
fn pages() -> Vec<Page> {
    let json_of =
        |path: &'static str| web::to(async move |handles: web::Data<Handles>| page(&handles, path.as_bytes()).await);
    let openapi = async || json(200, OPENAPI.to_owned());
    let key = vec![
        (Method::GET, web::to(keys::read)),
        (Method::HEAD, web::to(keys::read)),
        (Method::PUT, web::to(keys::store)),
        (Method::DELETE, web::to(keys::delete)),
    ];
    vec![
        get("/openapi.json", web::to(openapi)),
        get("/health/live", json_of("health/live")),
        get("/health/ready", json_of("health")),
        get("/metrics", web::to(metrics_page)),
        get("/v1/status", json_of("v1/status")),
        get("/v1/members", json_of("v1/members")),
        get("/v1/plan", json_of("v1/plan")),
        get("/v1/plan/join", web::to(as_it_came)),
        get("/v1/plan/leave/{id}", web::to(as_it_came)),
        get("/v1/plan/forget/{id}", web::to(as_it_came)),
        get("/v1/plan/share/{id}", web::to(as_it_came)),
        post("/v1/members/{id}/share", web::to(share)),
        get("/v1/ring", json_of("v1/ring")),
        get("/v1/ring/{key:.*}", web::to(ring_of)),
        post("/v1/members/{id}/forget", web::to(forget)),
        post("/v1/members/{id}/leave", web::to(leave)),
        post("/v1/members/{id}/stay", web::to(stay)),
        get("/v1/kv", web::to(list::list)),
        Page { path: "/v1/kv/{key:.*}", routes: key },
    ]
}

/// The routes of the endpoint.
fn routes(app: &mut web::ServiceConfig) {
    // One worker makes one.
    app.app_data(web::Data::new(body::Room::default()));
    for Page { path, routes } in pages() {
        let allowed: Vec<&str> = routes.iter().map(|(method, _)| method.as_str()).collect();
        let allowed = allowed.join(", ");
        let refused = move || std::future::ready(not_allowed(&allowed));
        let mut resource = web::resource(path).default_service(web::to(refused));
        for (method, route) in routes {
            resource = resource.route(route.method(method));
        }
        app.service(resource);
    }
    app.default_service(web::to(async || refuse(StatusCode::NOT_FOUND, "not_found", "no such page", "no")));
}

/// A page with other methods than the one asked for.
fn not_allowed(allowed: &str) -> HttpResponse {
    let message = format!("allowed here: {allowed}");
    let mut refusal = refuse(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message, "no");
    let allowed = HeaderValue::from_str(allowed).expect("names of methods are plain");
    refusal.headers_mut().insert(ALLOW, allowed);
    refusal
}

fn json(status: u16, body: String) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).content_type(ContentType::json()).body(body)
}

/// An error in the form that all pages share.
fn refuse(status: StatusCode, code: &str, message: &str, applied: &str) -> HttpResponse {
    let mut body = views::error(code, message);
    body["error"]["applied"] = applied.into();
    HttpResponse::build(status).content_type(ContentType::json()).body(body.to_string())
}

async fn page(handles: &Handles, path: &[u8]) -> HttpResponse {
    let (status, body) = handles.admin(path).await;
    json(status, body)
}

/// Takes the key from the path as it came, because one that is not text would not survive the framework's own decoding.
async fn ring_of(handles: web::Data<Handles>, request: HttpRequest) -> HttpResponse {
    page(&handles, &percent_decode_str(request.uri().path().trim_start_matches('/')).collect::<Vec<u8>>()).await
}

async fn forget(handles: web::Data<Handles>, id: web::Path<String>) -> HttpResponse {
    page(&handles, format!("POST v1/members/{id}/forget").as_bytes()).await
}

async fn leave(handles: web::Data<Handles>, id: web::Path<String>) -> HttpResponse {
    page(&handles, format!("POST v1/members/{id}/leave").as_bytes()).await
}

async fn stay(handles: web::Data<Handles>, id: web::Path<String>) -> HttpResponse {
    page(&handles, format!("POST v1/members/{id}/stay").as_bytes()).await
}

async fn share(handles: web::Data<Handles>, id: web::Path<String>, request: HttpRequest) -> HttpResponse {
    page(&handles, format!("POST v1/members/{id}/share?{}", request.query_string()).as_bytes()).await
}

/// A page that is named by path and parameters.
async fn as_it_came(handles: web::Data<Handles>, request: HttpRequest) -> HttpResponse {
    let asked = request.uri().path_and_query().map_or("", |asked| asked.as_str());
    page(&handles, asked.trim_start_matches('/').as_bytes()).await
}

async fn metrics_page(handles: web::Data<Handles>) -> HttpResponse {
    let report = handles.report().await;
    match report.not_live() {
        None => {
            HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics::render(&report))
        }
        // Sums that lack a part would read as counters that were reset.
        Some(reason) => json(503, views::error("unavailable", &reason).to_string()),
    }
}
