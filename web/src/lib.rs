//! The web client, embedded: `build.rs` has npm build it, [`router`] serves it from memory. Knows no path but
//! those of its files.

use axum::Router;
use memory_serve::CacheControl;

/// Serves the client's files, each with an ETag and compressed with brotli or gzip as the browser likes;
/// `index.html` at `/`. Anything else is not found.
pub fn router() -> Router {
    memory_serve::load!()
        .index_file(Some("/index.html"))
        .enable_brotli(true)
        .enable_gzip(true)
        .html_cache_control(CacheControl::NoCache)
        .cache_control(CacheControl::NoCache)
        .into_router()
}
