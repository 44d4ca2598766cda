//! The query part of a URL, as far as etcd's endpoints look at it.

/// Names with their values, decoded, in order; a name without "=" has an empty value. What cannot be decoded is left
/// out, as Go leaves it out.
pub(super) fn pairs(query: Option<&str>) -> Vec<(String, String)> {
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

/// All values of `name` that are not empty.
pub(super) fn values<'a>(pairs: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    pairs
        .iter()
        .filter(|(each, value)| each == name && !value.is_empty())
        .map(|(_, value)| value.as_str())
        .collect()
}

/// The first value of `name`.
pub(super) fn first<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded_and_broken_ones_left_out() {
        let decoded = pairs(Some("a=1&a=&b&c=%41+%2B&d=%4&e=%zz&&f=x;g=y&a=2"));
        assert_eq!(values(&decoded, "a"), ["1", "2"]);
        assert_eq!(first(&decoded, "b"), Some(""));
        assert_eq!(first(&decoded, "c"), Some("A +"));
        assert!(["d", "e", "f", "g"].iter().all(|name| first(&decoded, name).is_none()));
        assert!(pairs(None).is_empty());
    }
}
