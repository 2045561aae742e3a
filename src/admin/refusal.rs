//! Why a request was not done, as HTTP tells it: a status, and the error body that all pages share. Tested below.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};

use crate::base::limits::KEY_BYTES_MAX;

/// Nothing was done, but for [`Refusal::Node`], whose text tells, and [`Refusal::Gone`].
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The request makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// Nothing is under the key.
    #[error("no such key")]
    NoKey,
    /// What the request made a condition does not hold.
    #[error("the key is not as the request wants it")]
    Condition,
    /// A key beyond the limit.
    #[error("a key has at most {KEY_BYTES_MAX} bytes")]
    LongKey,
    /// A value beyond the limit.
    #[error("a value has at most {0} bytes")]
    LargeValue(usize),
    /// A value in an encoding that would be forgotten.
    #[error("values are stored as they come: send no Content-Encoding")]
    Encoded,
    /// The value did not arrive in time.
    #[error("the value did not arrive in time")]
    Slow,
    /// No room for the values of clients.
    #[error("the node is overloaded, nothing was done")]
    Busy,
    /// What the node said, in the words that all protocols share.
    #[error("{0}")]
    Node(String),
    /// The node stopped meanwhile.
    #[error("the node stopped meanwhile")]
    Gone,
}

impl Refusal {
    /// A request that makes no sense, because of this.
    pub(super) fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed(why.into())
    }

    /// Whether the client made a mistake with the request itself.
    pub(super) fn is_refused_at_the_door(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::LongKey | Self::LargeValue(_) | Self::Encoded | Self::Slow)
    }

    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::NoKey => (StatusCode::NOT_FOUND, "not_found"),
            Self::Condition => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            Self::LongKey => (StatusCode::URI_TOO_LONG, "too_large"),
            Self::LargeValue(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::Encoded => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding"),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::Gone => (StatusCode::SERVICE_UNAVAILABLE, "shutdown"),
            Self::Node(text) => match text.split(' ').next().unwrap_or_default() {
                "BUSY" => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
                "SHUTDOWN" => (StatusCode::SERVICE_UNAVAILABLE, "shutdown"),
                "NOQUORUM" => (StatusCode::SERVICE_UNAVAILABLE, "no_quorum"),
                "TIMEOUT" => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
                "OOM" => (StatusCode::INSUFFICIENT_STORAGE, "out_of_memory"),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            },
        }
    }

    /// Every error word but two means that nothing was done; those two say it themselves.
    fn applied(&self) -> &'static str {
        match self {
            Self::Node(text) if text.starts_with("NOQUORUM") || text.starts_with("TIMEOUT") => {
                if text.ends_with("applied: no") { "no" } else { "unknown" }
            }
            Self::Gone => "unknown",
            _ => "no",
        }
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.status_and_code().0
    }

    fn error_response(&self) -> HttpResponse {
        let (status, code) = self.status_and_code();
        super::refuse(status, code, &self.to_string(), self.applied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::reply::{BUSY, STOPPING};

    #[test]
    fn each_word_of_the_node_has_a_status_and_says_what_was_applied() {
        for (text, status, code, applied) in [
            (BUSY, 503, "busy", "no"),
            (STOPPING, 503, "shutdown", "no"),
            ("NOQUORUM too few, applied: no", 503, "no_quorum", "no"),
            ("NOQUORUM too few, applied: unknown", 503, "no_quorum", "unknown"),
            ("TIMEOUT too late, applied: no", 504, "timeout", "no"),
            ("TIMEOUT too late, applied: unknown", 504, "timeout", "unknown"),
            ("OOM command not allowed", 507, "out_of_memory", "no"),
            ("ERR what nobody expects", 500, "internal", "no"),
        ] {
            let refusal = Refusal::Node(text.into());
            let (found, name) = refusal.status_and_code();
            assert_eq!((found.as_u16(), name, refusal.applied()), (status, code, applied), "{text}");
        }
    }
}
