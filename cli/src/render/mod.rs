//! Text for people: the first page and the tables.

mod ipam;
mod page;
mod table;

pub(crate) use ipam::{ipam_addresses, ipam_check, ipam_status, removed};
#[cfg(test)]
pub(crate) use page::tests::view as sample_status;
pub(crate) use page::{launched, status};
#[cfg(test)]
pub(crate) use table::tests::peer as sample_peer;
pub(crate) use table::{attachments, endpoints, path, paths, peers, routes};

/// Bytes for people: `512 B`, `1.5 KiB`, `3.0 GiB`.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut unit = 0;
    let mut scaled = count;
    while scaled >= 1024 * 1024 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    let tenths = scaled.saturating_mul(10) / 1024;
    let name = UNITS.get(unit).unwrap_or(&"EiB");
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// The first digits of an id, as everywhere.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_decimal_and_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(10 << 20), "10.0 MiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(bytes(u64::MAX), "15.9 EiB");
    }
}
