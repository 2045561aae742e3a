//! Floor 5, the admin endpoint: actix-web over the same answers that `trellis-cli` gets, and the metrics page. Never touches an actor but
//! through `Handles`. Tested in `tests/process.rs`.

mod metrics;

use std::io;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Resource, Route, web};
use percent_encoding::percent_decode_str;

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
    let status = async |handles: web::Data<Handles>| page(&handles, b"v1/status").await;
    let members = async |handles: web::Data<Handles>| page(&handles, b"v1/members").await;
    let ring = async |handles: web::Data<Handles>| page(&handles, b"v1/ring").await;
    app.service(only("/health/live", web::get().to(live)))
        .service(only("/health/ready", web::get().to(ready)))
        .service(only("/metrics", web::get().to(metrics_page)))
        .service(only("/v1/status", web::get().to(status)))
        .service(only("/v1/members", web::get().to(members)))
        .service(only("/v1/ring", web::get().to(ring)))
        .service(only("/v1/ring/{key:.*}", web::get().to(ring_of)))
        .service(only("/v1/members/{id}/forget", web::post().to(forget)))
        .default_service(web::to(async || json(404, views::error("not_found", "no such page").to_string())));
}

/// A page with one method, which is an error in the common form for any other.
fn only(path: &str, route: Route) -> Resource {
    let refused = async || json(405, views::error("method_not_allowed", "not with this method").to_string());
    web::resource(path).route(route).default_service(web::to(refused))
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

/// Takes the key from the path as it came, because one that is not text would not survive the framework's own decoding.
async fn ring_of(handles: web::Data<Handles>, request: HttpRequest) -> HttpResponse {
    page(&handles, &percent_decode_str(request.uri().path().trim_start_matches('/')).collect::<Vec<u8>>()).await
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
