//! Lists, which the broker gives page by page.

use super::failure::Failure;

/// Entries asked for at a time, the most that one page holds.
const PAGE_SIZE: i32 = 1000;

/// The first `most` entries of a list. `page` asks for so many, behind a token that is empty for the first page, and gives
/// them with the token of the next page, empty where there is none.
pub(super) async fn read<E, T: From<E>>(
    most: usize,
    page: impl AsyncFn(i32, String) -> Result<(Vec<E>, String), Failure>,
) -> Result<Vec<T>, Failure> {
    let (mut read, mut token) = (Vec::new(), String::new());
    loop {
        let left = most - read.len();
        let size = i32::try_from(left).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
        let (entries, next) = page(size, token).await?;
        read.extend(entries.into_iter().take(left).map(T::from));
        if next.is_empty() || read.len() == most {
            return Ok(read);
        }
        token = next;
    }
}

/// All entries of a list.
pub(super) async fn read_all<E, T: From<E>>(
    page: impl AsyncFn(i32, String) -> Result<(Vec<E>, String), Failure>,
) -> Result<Vec<T>, Failure> {
    read(usize::MAX, page).await
}
