//! Floor 5, the admin endpoint: actix-web over the same answers that `trellis-cli` gets, and the metrics page. Never touches an actor but
//! through `Handles`. Tested in `tests/process.rs`.

mod metrics;

use std::io;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, web};

use crate::actors::handles::Handles;
use crate::actors::views;
use crate::net::PlainListener;

/// One worker is enough for people and scrapers.
const WORKERS: usize = 1;
/// Connections it takes at a time.
const CONNECTIONS_MAX: usize = 256;

/// Serves the admin endpoint on `listener` until the handle stops it.
///
/// # Errors
/// Those of taking the listener over.
pub fn serve(listener: PlainListener, handles: Handles) -> io::Result<ServerHandle> {
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

/// The routes of the endpoint.
pub fn routes(app: &mut web::ServiceConfig) {
    app.route("/health/live", web::get().to(live))
        .route("/health/ready", web::get().to(ready))
        .route("/metrics", web::get().to(metrics_page))
        .route("/v1/status", web::get().to(async |handles: web::Data<Handles>| page(&handles, b"v1/status").await))
        .route("/v1/members", web::get().to(async |handles: web::Data<Handles>| page(&handles, b"v1/members").await))
        .route("/v1/ring", web::get().to(async |handles: web::Data<Handles>| page(&handles, b"v1/ring").await))
        .route("/v1/ring/{key:.*}", web::get().to(ring_of))
        .route("/v1/members/{id}/forget", web::post().to(forget))
        .default_service(web::to(async || json(404, views::error("not_found", "no such page").to_string())));
}

fn json(status: u16, body: String) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).content_type(ContentType::json()).body(body)
}

async fn page(handles: &Handles, path: &[u8]) -> HttpResponse {
    let (status, body) = handles.admin(path).await;
    json(status, body)
}

async fn live(handles: web::Data<Handles>) -> HttpResponse {
    page(&handles, b"health/live").await
}

async fn ready(handles: web::Data<Handles>) -> HttpResponse {
    page(&handles, b"health").await
}

async fn ring_of(handles: web::Data<Handles>, key: web::Path<String>) -> HttpResponse {
    page(&handles, &[b"v1/ring/", key.as_bytes()].concat()).await
}

async fn forget(handles: web::Data<Handles>, id: web::Path<String>) -> HttpResponse {
    page(&handles, format!("POST v1/members/{id}/forget").as_bytes()).await
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
