//! Files of videos, whole or in part.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::UNIX_EPOCH;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use tokio::task::JoinHandle;

use super::Stored;
use super::range::{Share, wanted};
use crate::error::ApiError;
use crate::handlers::blocking;

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// As much of a file as the headers of a request want. What was opened stays readable if it is removed meanwhile.
///
/// # Errors
/// It cannot be opened.
pub(super) async fn serve(stored: Stored, headers: &HeaderMap) -> Result<Response, ApiError> {
    let Stored { path, media_type, name } = stored;
    let (mut file, length, tag) = blocking(move || {
        open(&path).map_err(|error| match error.kind() {
            // It was removed since it was looked for.
            io::ErrorKind::NotFound => {
                ApiError::new(StatusCode::NOT_FOUND, "this video is there no more").code("video_not_found")
            }
            _ => {
                tracing::error!(path = %path.display(), %error, "a video's file");
                ApiError::internal("the video's file cannot be read; the server's log says why")
            }
        })
    })
    .await?;
    let share = wanted(headers, length, &tag);
    let (first, count) = match share {
        Share::Whole => (0, length),
        Share::Part { first, last } => (first, last - first + 1),
        Share::Unchanged | Share::Outside => (0, 0),
    };
    let mut response = match share {
        Share::Unchanged => StatusCode::NOT_MODIFIED.into_response(),
        Share::Outside => {
            let message = format!("the file has {length} bytes, and none of those that Range asks for");
            ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, message)
                .code("range_not_satisfiable")
                .into_response()
        }
        Share::Whole | Share::Part { .. } => {
            file.seek(SeekFrom::Start(first))
                .map_err(|error| ApiError::internal(format!("the video's file cannot be read: {error}")))?;
            let mut response = Body::from_stream(Reading::new(file, count)).into_response();
            let disposition = format!("inline; filename=\"{name}\"");
            let fields = [
                (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
                (header::CONTENT_LENGTH, HeaderValue::from(count)),
                (header::CONTENT_DISPOSITION, text(disposition)?),
            ];
            response.headers_mut().extend(fields);
            response
        }
    };
    if let Share::Part { first, last } = share {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = text(format!("bytes {first}-{last}/{length}"))?;
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    if share == Share::Outside {
        response.headers_mut().insert(header::CONTENT_RANGE, text(format!("bytes */{length}"))?);
    }
    let fields = [
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::ETAG, text(tag)?),
        // It may be deleted, and is nobody else's.
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
    ];
    response.headers_mut().extend(fields);
    Ok(response)
}

fn text(text: String) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(text).map_err(|error| ApiError::internal(format!("a header: {error}")))
}

/// A file, its length, and a name for just these bytes: files appear by renaming and never change, so another one has
/// another time.
fn open(path: &std::path::Path) -> io::Result<(File, u64, String)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let time = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let what = format!("{} {} {}", path.display(), metadata.len(), time.as_nanos());
    let tag = format!("\"{}\"", &blake3::hash(what.as_bytes()).to_hex()[..32]);
    Ok((file, metadata.len(), tag))
}

type Chunk = JoinHandle<(File, io::Result<Bytes>)>;

/// A part of a file as it is read: disks are waited for elsewhere, one chunk at a time.
struct Reading {
    stage: Stage,
    /// Bytes that are still to come.
    left: u64,
}

enum Stage {
    Idle(File),
    Busy(Chunk),
    Ended,
}

impl Reading {
    fn new(file: File, left: u64) -> Reading {
        Reading { stage: Stage::Idle(file), left }
    }
}

fn read(mut file: File, count: usize) -> (File, io::Result<Bytes>) {
    let mut chunk = Vec::with_capacity(count);
    let read = (&mut file).take(count as u64).read_to_end(&mut chunk);
    let read = read.and_then(|read| match read {
        // Its length was told.
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(Bytes::from(chunk)),
    });
    (file, read)
}

impl Stream for Reading {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Ended) {
                Stage::Ended => return Poll::Ready(None),
                Stage::Idle(_) if self.left == 0 => return Poll::Ready(None),
                Stage::Idle(file) => {
                    let count = self.left.min(CHUNK as u64) as usize;
                    self.stage = Stage::Busy(tokio::task::spawn_blocking(move || read(file, count)));
                }
                Stage::Busy(mut chunk) => {
                    let Poll::Ready(done) = Pin::new(&mut chunk).poll(context) else {
                        self.stage = Stage::Busy(chunk);
                        return Poll::Pending;
                    };
                    let (file, read) = done.map_err(io::Error::other)?;
                    if let Ok(bytes) = &read {
                        self.left -= bytes.len() as u64;
                        self.stage = Stage::Idle(file);
                    }
                    return Poll::Ready(Some(read));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Status, headers and body.
    fn ask(
        path: &std::path::Path,
        fields: &[(header::HeaderName, &str)],
    ) -> (StatusCode, HeaderMap, Vec<u8>) {
        let headers: HeaderMap =
            fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let stored =
            Stored { path: path.to_owned(), media_type: "video/mp4", name: "video_1.mp4".to_owned() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let response = serve(stored, &headers).await.unwrap_or_else(|error| error.into_response());
            let (head, body) = response.into_parts();
            (head.status, head.headers, axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec())
        })
    }

    #[test]
    fn every_part_is_that_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("video.mp4");
        let bytes: Vec<u8> = (0..2 * CHUNK + 5).map(|index| (index % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let (status, headers, body) = ask(&path, &[]);
        assert_eq!(
            (status, &headers[header::CONTENT_TYPE], body == bytes),
            (StatusCode::OK, &"video/mp4".parse().unwrap(), true)
        );
        assert_eq!(headers[header::CONTENT_LENGTH], bytes.len().to_string());
        assert_eq!(headers[header::CONTENT_DISPOSITION], "inline; filename=\"video_1.mp4\"");
        let length = bytes.len();
        for (first, last) in
            [(0, 0), (0, CHUNK - 1), (1, CHUNK), (CHUNK, 2 * CHUNK + 4), (length - 1, length - 1)]
        {
            let (status, headers, body) = ask(&path, &[(header::RANGE, &format!("bytes={first}-{last}"))]);
            assert_eq!(status, StatusCode::PARTIAL_CONTENT);
            assert_eq!(headers[header::CONTENT_RANGE], format!("bytes {first}-{last}/{length}"));
            assert!(body == bytes[first..=last], "{first}-{last}");
        }
        let (status, headers, body) = ask(&path, &[(header::RANGE, &format!("bytes={length}-"))]);
        assert_eq!(
            (status, headers[header::CONTENT_RANGE].to_str().unwrap()),
            (StatusCode::RANGE_NOT_SATISFIABLE, format!("bytes */{length}").as_str())
        );
        assert!(String::from_utf8(body).unwrap().contains("range_not_satisfiable"));
    }

    #[test]
    fn another_file_has_another_tag() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("video.gif");
        std::fs::write(&path, b"one").unwrap();
        let (_, headers, _) = ask(&path, &[]);
        let tag = headers[header::ETAG].to_str().unwrap().to_owned();
        let (status, headers, body) = ask(&path, &[(header::IF_NONE_MATCH, &tag)]);
        assert_eq!(
            (status, &headers[header::ETAG], body.len()),
            (StatusCode::NOT_MODIFIED, &tag.parse().unwrap(), 0)
        );
        let part = [(header::RANGE, "bytes=1-"), (header::IF_RANGE, tag.as_str())];
        assert_eq!(ask(&path, &part).2, b"ne");
        std::fs::write(&path, b"two").unwrap();
        let later = std::time::SystemTime::now() + Duration::from_secs(1);
        File::open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(ask(&path, &part), {
            let (status, headers, body) = ask(&path, &[]);
            assert_eq!((status, body.as_slice()), (StatusCode::OK, &b"two"[..]));
            (status, headers, body)
        });
        std::fs::remove_file(&path).unwrap();
        assert_eq!(ask(&path, &[]).0, StatusCode::NOT_FOUND);
    }

    #[test]
    fn an_empty_file_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        let (status, headers, body) = ask(&path, &[]);
        assert_eq!(
            (status, headers[header::CONTENT_LENGTH].to_str().unwrap(), body.len()),
            (StatusCode::OK, "0", 0)
        );
    }
}
