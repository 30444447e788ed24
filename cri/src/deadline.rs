//! The end of a call's time, which a client names in `grpc-timeout`: it is told by DEADLINE_EXCEEDED, as gRPC's table of
//! codes has it. tonic alone answers CANCELLED, which kubelet does not take for a probe that took too long.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::Layer;

/// The layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines;

impl<S> Layer<S> for Deadlines {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed { inner }
    }
}

/// A service whose calls end with their time.
#[derive(Clone, Debug)]
pub(crate) struct Timed<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Timed<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limit = limit(request.headers());
        let answer = self.inner.call(request);
        match limit {
            // The clock starts here, before tonic's own for the same time.
            Some(limit) => {
                let answer = timeout(limit, answer);
                Box::pin(async move {
                    answer.await.unwrap_or_else(|_| {
                        let message = "the call has taken longer than its client gave it";
                        Ok(Status::deadline_exceeded(message).into_http())
                    })
                })
            }
            None => Box::pin(answer),
        }
    }
}

/// How long a call may take: at most eight digits and a unit (gRPC over HTTP/2, Requests). What is none is no limit.
fn limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 60 * 60)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_digits_and_a_unit() {
        let told = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            limit(&headers)
        };
        assert_eq!(told("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(told("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(told("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(told("7u"), Some(Duration::from_micros(7)));
        for none in ["", "S", "1", "-1S", "+1S", "123456789S", "1s", "1 S"] {
            assert_eq!(told(none), None, "{none:?}");
        }
        assert_eq!(limit(&HeaderMap::new()), None);
    }
}
