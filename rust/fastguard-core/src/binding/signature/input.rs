//! `Signature-Input` and `Signature`: what is said to be signed, and the signatures (RFC 9421 §4).

use sfv::{InnerList, ListEntry};

use super::component::Component;
use super::dictionary::unique_dictionary;
use super::message::{SignedMessage, written};
use crate::bounds::{
    MAX_KEY_ID_BYTES, MAX_PROOF_ID_BYTES, MAX_SIGNATURE_COMPONENTS, MAX_SIGNATURE_FIELD_BYTES, MAX_SIGNATURES,
};
use crate::clock::UnixTime;
use crate::denial::Denial;

const fn malformed(what: &'static str) -> Denial {
    Denial::SignatureMalformed { what }
}

/// One signature, with what it says of itself. Nothing of it is true before it was verified.
#[derive(Clone, Debug)]
pub struct SignatureInput {
    label: String,
    components: Vec<Component>,
    created: Option<UnixTime>,
    expires: Option<UnixTime>,
    nonce: Option<String>,
    algorithm: Option<String>,
    key_id: Option<String>,
    tag: Option<String>,
    /// `@signature-params`: the member of `Signature-Input`, as RFC 9651 §4.1 writes it.
    parameters: String,
    signature: Vec<u8>,
}

/// Reads the signatures of a message. `tag`: those of this tag alone; the others may be of proxies, and are not looked into.
pub fn read_signatures(input: &[u8], signature: &[u8], tag: Option<&str>) -> Result<Vec<SignatureInput>, Denial> {
    if input.len() > MAX_SIGNATURE_FIELD_BYTES || signature.len() > MAX_SIGNATURE_FIELD_BYTES {
        return Err(malformed("a field is longer than 8 KiB"));
    }
    let inputs = unique_dictionary(input).ok_or(malformed("`Signature-Input` is no dictionary of unique labels"))?;
    let signatures = unique_dictionary(signature).ok_or(malformed("`Signature` is no dictionary of unique labels"))?;
    if inputs.len() > MAX_SIGNATURES {
        return Err(malformed("there are more than 8 signatures"));
    }
    if inputs.len() != signatures.len() {
        return Err(malformed("`Signature-Input` and `Signature` have other labels"));
    }
    let mut found = Vec::new();
    for (label, entry) in inputs {
        let signature = match signatures.get(&label) {
            Some(ListEntry::Item(item)) if item.params.is_empty() => item.bare_item.as_byte_sequence(),
            _ => None,
        };
        let signature = signature.ok_or(malformed("`Signature` has no bytes under the label"))?;
        let ListEntry::InnerList(list) = entry else { return Err(malformed("a member is no list of components")) };
        let own = list.params.get("tag").and_then(|tag| tag.as_string()).map(sfv::StringRef::as_str);
        if tag.is_none() || own == tag {
            found.push(SignatureInput::read(label.as_str(), list, signature.to_vec())?);
        }
    }
    Ok(found)
}

impl SignatureInput {
    fn read(label: &str, list: InnerList, signature: Vec<u8>) -> Result<Self, Denial> {
        if list.items.len() > MAX_SIGNATURE_COMPONENTS {
            return Err(malformed("more than 32 components are covered"));
        }
        let mut components: Vec<Component> = Vec::with_capacity(list.items.len());
        for item in &list.items {
            let component = Component::read(item).map_err(malformed)?;
            if components.iter().any(|other| other.identifier == component.identifier) {
                return Err(malformed("a component is covered twice"));
            }
            components.push(component);
        }
        let mut found = Self {
            label: label.to_owned(),
            components,
            created: None,
            expires: None,
            nonce: None,
            algorithm: None,
            key_id: None,
            tag: None,
            parameters: String::new(),
            signature,
        };
        for (name, value) in &list.params {
            let moment = || value.as_integer().map(|seconds| UnixTime::from_seconds(seconds.into()));
            let text = |longest: usize| {
                let text = value.as_string().map(|text| text.as_str().to_owned());
                text.filter(|text| text.len() <= longest)
                    .map(Some)
                    .ok_or(malformed("a parameter is no string, or too long"))
            };
            match name.as_str() {
                "created" => found.created = Some(moment().ok_or(malformed("`created` is no integer"))?),
                "expires" => found.expires = Some(moment().ok_or(malformed("`expires` is no integer"))?),
                "nonce" => found.nonce = text(MAX_PROOF_ID_BYTES)?,
                "alg" => found.algorithm = text(MAX_PROOF_ID_BYTES)?,
                "keyid" => found.key_id = text(MAX_KEY_ID_BYTES)?,
                "tag" => found.tag = text(MAX_PROOF_ID_BYTES)?,
                _ => return Err(malformed("a parameter of the signature is not known")),
            }
        }
        found.parameters = written(&ListEntry::InnerList(list)).ok_or(malformed("the list cannot be written"))?;
        Ok(found)
    }

    /// The label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// `created`.
    pub const fn created(&self) -> Option<UnixTime> {
        self.created
    }

    /// `expires`.
    pub const fn expires(&self) -> Option<UnixTime> {
        self.expires
    }

    /// `nonce`.
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }

    /// `alg`.
    pub fn algorithm(&self) -> Option<&str> {
        self.algorithm.as_deref()
    }

    /// `keyid`.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// `tag`.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The signature's bytes.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Whether a component is covered whole: without any parameter, which could leave out a part of it.
    pub fn covers(&self, name: &str) -> bool {
        self.components.iter().any(|component| component.name == name && component.identifier.len() == name.len() + 2)
    }

    /// Whether any component is not of the message itself: of a request that it answers, or of its trailers.
    pub(super) fn reaches_beyond(&self) -> bool {
        self.components.iter().any(|component| component.parameters.is_of_request || component.parameters.is_trailer)
    }

    /// What is signed (RFC 9421 §2.5).
    pub fn base(&self, message: &SignedMessage<'_>) -> Result<String, Denial> {
        let mut base = String::new();
        for component in &self.components {
            let refused = |what| Denial::SignatureComponents { component: component.identifier.clone(), what };
            let value = message.value(component).map_err(refused)?;
            base.extend([component.identifier.as_str(), ": ", value.as_str(), "\n"]);
        }
        base.extend(["\"@signature-params\": ", self.parameters.as_str()]);
        Ok(base)
    }
}
