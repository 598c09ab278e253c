//! The client's certificate, as a declared proxy hands it on (RFC 8705 §3, RFC 9440).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::clock::UnixTime;
use crate::config::CertificateSource;
use crate::denial::Denial;
use crate::jose::{encode_segment, is_same, sha256};

/// A certificate, or what a proxy says of it.
#[derive(Debug, Eq, PartialEq)]
pub struct ClientCertificate {
    thumbprint: String,
    /// From and until when it is valid; not known where the proxy hands on the hash alone.
    validity: Option<(UnixTime, UnixTime)>,
    /// Its subject alternative names (RFC 5280 §4.2.1.6) that are URIs or names of the DNS.
    names: Vec<String>,
}

const fn malformed(what: &'static str) -> Denial {
    Denial::CertificateMalformed { what }
}

impl ClientCertificate {
    /// Reads the header of a source.
    pub fn read(source: CertificateSource, value: &str) -> Result<Self, Denial> {
        match source {
            CertificateSource::Off => Err(Denial::CertificateMissing),
            CertificateSource::ClientCert => Self::from_der(&binary_item(value)?),
            CertificateSource::Nginx => Self::from_der(&escaped_pem(value)?),
            CertificateSource::Tls => Self::from_der(&pem(value)?),
            CertificateSource::Envoy => Self::from_envoy(value),
        }
    }

    /// Confirms that a token's `x5t#S256` names this certificate, and that the certificate is valid now.
    pub fn confirm(&self, thumbprint: &str, now: UnixTime) -> Result<(), Denial> {
        // M1: in constant time, though both are known to whoever presents them.
        if !is_same(self.thumbprint.as_bytes(), thumbprint.as_bytes()) {
            return Err(Denial::CertificateMismatch);
        }
        self.confirm_time(now)
    }

    /// Confirms that the certificate has one of these names, and is valid now.
    pub fn confirm_name(&self, names: &[String], now: UnixTime) -> Result<(), Denial> {
        // Names of the DNS count in any case. URIs are compared letter by letter, as SPIFFE has it.
        let is_same = |one: &String, other: &String| {
            if is_uri(other) { one == other } else { one.eq_ignore_ascii_case(other) }
        };
        if !self.names.iter().any(|name| names.iter().any(|expected| is_same(name, expected))) {
            return Err(Denial::CertificateNameMismatch);
        }
        self.confirm_time(now)
    }

    fn confirm_time(&self, now: UnixTime) -> Result<(), Denial> {
        match self.validity {
            // RFC 5280 §4.1.2.5: valid from the first to the last moment, both inclusive.
            Some((from, until)) if now < from || now > until => Err(Denial::CertificateExpired),
            _ => Ok(()),
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, Denial> {
        let (validity, names) = read_der(der).ok_or(malformed("no X.509 certificate in DER"))?;
        Ok(Self { thumbprint: encode_segment(&sha256(der)), validity: Some(validity), names })
    }

    /// One element of `x-forwarded-client-cert`. Several would leave open which proxy saw which client.
    fn from_envoy(value: &str) -> Result<Self, Denial> {
        let mut found: [Option<&str>; 2] = [None; 2];
        let mut names = Vec::new();
        for pair in split_unquoted(value)? {
            let (key, value) = pair.split_once('=').ok_or(malformed("a part has no `=`"))?;
            let [hash, certificate] = &mut found;
            let slot = if key.eq_ignore_ascii_case("Hash") {
                hash
            } else if key.eq_ignore_ascii_case("Cert") {
                certificate
            } else {
                // Of the client's certificate too, one part for each; `By` and `Subject` are not.
                let is_name = if is_uri(unquoted(value)) { "URI" } else { "DNS" };
                if key.eq_ignore_ascii_case(is_name) {
                    names.push(unquoted(value).to_owned());
                }
                continue;
            };
            if slot.replace(unquoted(value)).is_some() {
                return Err(malformed("a part came twice"));
            }
        }
        match found {
            [Some(hash), Some(certificate)] => {
                let read = Self::from_der(&escaped_pem(certificate)?)?;
                if read.thumbprint == hash_of(hash)? {
                    Ok(read)
                } else {
                    Err(malformed("`Hash` is not that of `Cert`"))
                }
            }
            [None, Some(certificate)] => Self::from_der(&escaped_pem(certificate)?),
            [Some(hash), None] => Ok(Self { thumbprint: hash_of(hash)?, validity: None, names }),
            [None, None] => Err(malformed("neither `Hash` nor `Cert`")),
        }
    }
}

/// Whether a name is a URI with an authority, as SPIFFE's are; no name of the DNS has a colon.
fn is_uri(name: &str) -> bool {
    name.contains("://")
}

/// Splits at semicolons outside of quotes; a comma outside of them begins another element, which is refused.
fn split_unquoted(value: &str) -> Result<Vec<&str>, Denial> {
    let (mut parts, mut start, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return Err(malformed("more than one element")),
            b';' if !is_quoted => {
                parts.push(value.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    if is_quoted {
        return Err(malformed("a quote is not closed"));
    }
    parts.push(value.get(start..).unwrap_or_default());
    Ok(parts)
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

/// 64 hexadecimal digits as base64url.
fn hash_of(hex: &str) -> Result<String, Denial> {
    let bytes = hex.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs: Option<Vec<u8>> = bytes
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
            _ => None,
        })
        .collect();
    match pairs {
        Some(hash) if hash.len() == 32 => Ok(encode_segment(&hash)),
        _ => Err(malformed("`Hash` is no SHA-256 in hexadecimal digits")),
    }
}

/// A binary item of structured fields (RFC 9651 §3.3.5): base64 between colons, without parameters.
fn binary_item(value: &str) -> Result<Vec<u8>, Denial> {
    let inner = value.strip_prefix(':').and_then(|rest| rest.strip_suffix(':'));
    inner.and_then(|inner| STANDARD.decode(inner).ok()).ok_or(malformed("no binary item (RFC 9440 section 2.1)"))
}

/// One certificate as PEM (RFC 7468), percent-encoded.
fn escaped_pem(value: &str) -> Result<Vec<u8>, Denial> {
    pem(&percent_decoded(value).ok_or(malformed("no percent-encoded PEM of one certificate"))?)
}

/// One certificate as PEM (RFC 7468).
fn pem(text: &str) -> Result<Vec<u8>, Denial> {
    let wrong = || malformed("no PEM of one certificate");
    let body = text.trim_ascii().strip_prefix("-----BEGIN CERTIFICATE-----").ok_or_else(wrong)?;
    let body = body.strip_suffix("-----END CERTIFICATE-----").ok_or_else(wrong)?;
    let digits: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(digits).map_err(|_| wrong())
}

fn percent_decoded(value: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (high, low) = (char::from(bytes.next()?).to_digit(16)?, char::from(bytes.next()?).to_digit(16)?);
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(decoded).ok().filter(|text| text.is_ascii())
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notBefore` and `notAfter` of a certificate and its names (RFC 5280 §4.1). The DER must end where the certificate does, so that no two
/// texts have one certificate.
fn read_der(der: &[u8]) -> Option<((UnixTime, UnixTime), Vec<String>)> {
    let (certificate, rest) = element(der, SEQUENCE)?;
    if !rest.is_empty() {
        return None;
    }
    let (to_be_signed, _) = element(certificate, SEQUENCE)?;
    // Version (in v2 and v3), serial number, algorithm, issuer; then the validity.
    let after_version = match to_be_signed.first()? {
        0xa0 => element(to_be_signed, 0xa0)?.1,
        _ => to_be_signed,
    };
    let (_, after_serial) = element(after_version, 0x02)?;
    let (_, after_algorithm) = element(after_serial, SEQUENCE)?;
    let (_, after_issuer) = element(after_algorithm, SEQUENCE)?;
    let (validity, after_validity) = element(after_issuer, SEQUENCE)?;
    let (from, rest) = time(validity)?;
    let (until, rest) = time(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let (_, after_subject) = element(after_validity, SEQUENCE)?;
    let (_, mut rest) = element(after_subject, SEQUENCE)?;
    // The two unique identifiers that nobody writes, then the extensions.
    for tag in [0x81, 0x82] {
        rest = element(rest, tag).map_or(rest, |(_, after)| after);
    }
    if rest.is_empty() {
        return Some(((from, until), Vec::new()));
    }
    let (extensions, rest) = element(rest, 0xa3)?;
    let names = names(element(extensions, SEQUENCE)?.0)?;
    rest.is_empty().then_some(((from, until), names))
}

/// The URIs and names of the DNS among the subject alternative names; an extension must not come twice (RFC 5280 §4.2).
fn names(mut extensions: &[u8]) -> Option<Vec<String>> {
    /// 2.5.29.17
    const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
    let mut found: Option<Vec<String>> = None;
    while !extensions.is_empty() {
        let (extension, after) = element(extensions, SEQUENCE)?;
        extensions = after;
        let (id, rest) = element(extension, 0x06)?;
        if id != SUBJECT_ALT_NAME {
            continue;
        }
        // Critical or not.
        let rest = element(rest, 0x01).map_or(rest, |(_, after)| after);
        let (value, _) = element(rest, 0x04)?;
        let (mut list, rest) = element(value, SEQUENCE)?;
        let mut names = Vec::new();
        while let Some(tag) = list.first() {
            let (name, after) = element(list, *tag)?;
            list = after;
            // [2] is a name of the DNS, [6] a URI; both are ASCII.
            let Some(text) =
                std::str::from_utf8(name).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
            else {
                continue;
            };
            // One kind must not pass for the other.
            if *tag == if is_uri(text) { 0x86 } else { 0x82 } {
                names.push(text.to_owned());
            }
        }
        if !rest.is_empty() || found.replace(names).is_some() {
            return None;
        }
    }
    Some(found.unwrap_or_default())
}

/// The content of the first element, which must have this tag, and what follows it. Lengths in their shortest form (X.690 §10.1).
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = match rest.split_first()? {
        (short @ 0..=0x7f, rest) => (usize::from(*short), rest),
        (0x81, rest) => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length).checked_sub(0x80)? + 0x80, rest)
        }
        (0x82, [high, low, rest @ ..]) => {
            let length = usize::from(*high) * 256 + usize::from(*low);
            (length.checked_sub(0x100)? + 0x100, rest)
        }
        // 64 KiB and more does not come in a header.
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A time in UTC with seconds, as RFC 5280 §4.1.2.5 writes it, and what follows it.
fn time(der: &[u8]) -> Option<(UnixTime, &[u8])> {
    let tag = *der.first()?;
    let (text, rest) = element(der, tag)?;
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let pairs: Vec<i64> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |n, d| n * 10 + i64::from(*d - b'0'))).collect();
    let (year, fields) = match (tag, pairs.as_slice()) {
        (UTC_TIME, [year, fields @ ..]) => (if *year < 50 { 2_000 + year } else { 1_900 + year }, fields),
        (GENERALIZED_TIME, [century, year, fields @ ..]) => (century * 100 + year, fields),
        _ => return None,
    };
    let [month @ 1..=12, day @ 1..=31, hour @ 0..=23, minute @ 0..=59, second @ 0..=59] = fields else { return None };
    let days = days_since_epoch(year, *month, *day);
    Some((UnixTime::from_seconds(((days * 24 + hour) * 60 + minute) * 60 + second), rest))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that the leap day is the last.
const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let months_since_march = (month + 9) % 12;
    let day_of_year = (153 * months_since_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 8705 appendix A, valid from 2018-10-18 12:37:09 to 2022-05-02 12:37:09.
    const EXAMPLE: &str = "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAxODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwIDSQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOVbUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=";
    const THUMBPRINT: &str = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0";
    const FROM: i64 = 1_539_866_229;
    const UNTIL: i64 = 1_651_495_029;

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_seconds(seconds)
    }

    fn escaped(body: &str) -> String {
        let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        pem.bytes().fold(String::new(), |text, byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' => text + &char::from(byte).to_string(),
            _ => text + &format!("%{byte:02X}"),
        })
    }

    fn hex() -> String {
        let der = STANDARD.decode(EXAMPLE).unwrap();
        sha256(&der).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }

    #[test]
    fn example_of_rfc_8705_is_read_from_every_source() {
        let pem = escaped(EXAMPLE);
        let whole = ClientCertificate {
            thumbprint: THUMBPRINT.to_owned(),
            validity: Some((at(FROM), at(UNTIL))),
            names: vec![],
        };
        let hash_alone = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            ClientCertificate { thumbprint: THUMBPRINT.to_owned(), validity: None, names }
        };
        let (bare, named) = (hash_alone(&[]), hash_alone(&["spiffe://a/c"]));
        let (hash, by) = (hex(), "By=spiffe://a/b;");
        for (source, value, expected) in [
            (CertificateSource::ClientCert, format!(":{EXAMPLE}:"), &whole),
            (CertificateSource::Nginx, pem.clone(), &whole),
            (CertificateSource::Tls, percent_decoded(&pem).unwrap(), &whole),
            (CertificateSource::Envoy, format!("Hash={hash}"), &bare),
            (CertificateSource::Envoy, format!("{by}Hash={hash};Subject=\"CN=a,O=b;c\";URI=spiffe://a/c"), &named),
            (CertificateSource::Envoy, format!("{by}Cert=\"{pem}\""), &whole),
            (CertificateSource::Envoy, format!("Hash={};Cert=\"{pem}\"", hash.to_uppercase()), &whole),
        ] {
            assert_eq!(ClientCertificate::read(source, &value).as_ref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn certificate_counts_from_its_first_to_its_last_second() {
        let read = ClientCertificate::read(CertificateSource::ClientCert, &format!(":{EXAMPLE}:")).unwrap();
        for (seconds, expected) in [
            (FROM - 1, Err(Denial::CertificateExpired)),
            (FROM, Ok(())),
            (UNTIL, Ok(())),
            (UNTIL + 1, Err(Denial::CertificateExpired)),
        ] {
            assert_eq!(read.confirm(THUMBPRINT, at(seconds)), expected, "{seconds}");
        }
        for other in ["", "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v1", "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v"] {
            assert_eq!(read.confirm(other, at(FROM)), Err(Denial::CertificateMismatch), "{other}");
        }
    }

    #[test]
    fn what_is_no_single_certificate_is_refused() {
        let (hash, pem) = (hex(), escaped(EXAMPLE));
        let longer = STANDARD.encode([STANDARD.decode(EXAMPLE).unwrap(), vec![0]].concat());
        let other_hash = "0".repeat(64);
        for (source, value) in [
            (CertificateSource::ClientCert, EXAMPLE.to_owned()),
            (CertificateSource::ClientCert, "::".to_owned()),
            (CertificateSource::ClientCert, ":AAAA:".to_owned()),
            (CertificateSource::ClientCert, format!(":{longer}:")),
            (CertificateSource::ClientCert, format!(":{EXAMPLE}:, :{EXAMPLE}:")),
            (CertificateSource::Nginx, EXAMPLE.to_owned()),
            (CertificateSource::Nginx, format!("{pem}{pem}")),
            (CertificateSource::Nginx, escaped(&longer)),
            (CertificateSource::Nginx, "%".to_owned()),
            (CertificateSource::Envoy, String::new()),
            (CertificateSource::Envoy, "Hash=abc".to_owned()),
            (CertificateSource::Envoy, "Subject=\"CN=a\"".to_owned()),
            (CertificateSource::Envoy, format!("Hash={hash},Hash={other_hash}")),
            (CertificateSource::Envoy, format!("Hash={hash};Hash={hash}")),
            (CertificateSource::Envoy, format!("Hash={other_hash};Cert=\"{pem}\"")),
            (CertificateSource::Envoy, format!("Subject=\"CN=a;Hash={hash}")),
            (CertificateSource::Envoy, format!("Subject=\"CN=\\\";Hash={other_hash};\"")),
        ] {
            let read = ClientCertificate::read(source, &value);
            assert!(matches!(read, Err(Denial::CertificateMalformed { .. })), "{value} {read:?}");
        }
    }

    #[test]
    fn days_are_counted_by_the_gregorian_calendar() {
        for (date, days) in [((1970, 1, 1), 0), ((2000, 2, 29), 11_016), ((2000, 3, 1), 11_017), ((2100, 3, 1), 47_541)]
        {
            assert_eq!(days_since_epoch(date.0, date.1, date.2), days, "{date:?}");
        }
    }
}
