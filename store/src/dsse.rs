//! Signed JSON: a DSSE envelope around a payload, by Ed25519.
//!
//! ```text
//! {"payload": base64, "payloadType": …, "signatures": [{"keyid": …, "sig": base64}]}
//! signature = Ed25519("DSSEv1 " len(type) " " type " " len(payload) " " payload)
//! ```
//! An envelope has one spelling: [`open`] writes what it read again and refuses other bytes, so
//! that a change of any byte is seen, also of those a signature does not cover.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    keyid: String,
    sig: String,
}

fn encoded(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

fn write(envelope: &Envelope) -> Result<Bytes> {
    let mut text = serde_json::to_vec(envelope)
        .map_err(|error| Error::invalid("envelope", error.to_string()))?;
    text.push(b'\n');
    Ok(text.into())
}

/// Signs `payload`.
pub(crate) fn seal<T: Serialize>(
    payload_type: &str,
    payload: &T,
    key_id: &str,
    key: &SigningKey,
) -> Result<Bytes> {
    let payload = serde_json::to_vec(payload)
        .map_err(|error| Error::invalid(payload_type, error.to_string()))?;
    let signature = key.sign(&encoded(payload_type, &payload));
    write(&Envelope {
        payload: STANDARD.encode(&payload),
        payload_type: payload_type.to_owned(),
        signatures: vec![EnvelopeSignature {
            keyid: key_id.to_owned(),
            sig: STANDARD.encode(signature.to_bytes()),
        }],
    })
}

/// An envelope as read: its signature is not checked yet.
pub(crate) struct Sealed {
    object: String,
    payload_type: String,
    payload: Vec<u8>,
    pub key_id: String,
    signature: Signature,
}

/// Reads an envelope of one signature.
pub(crate) fn open(object: &str, bytes: &[u8]) -> Result<Sealed> {
    let envelope: Envelope = serde_json::from_slice(bytes)
        .map_err(|error| Error::corrupt(object, format!("not an envelope: {error}")))?;
    if write(&envelope)? != bytes {
        return Err(Error::corrupt(object, "not written the way gilt writes it"));
    }
    let decode = |what: &str, text: &str| {
        STANDARD.decode(text).map_err(|error| Error::corrupt(object, format!("{what}: {error}")))
    };
    let [signature] = &envelope.signatures[..] else {
        return Err(Error::corrupt(object, "want one signature"));
    };
    let sig = decode("signature", &signature.sig)?;
    Ok(Sealed {
        object: object.to_owned(),
        payload: decode("payload", &envelope.payload)?,
        payload_type: envelope.payload_type,
        key_id: signature.keyid.clone(),
        signature: Signature::from_slice(&sig)
            .map_err(|_| Error::corrupt(object, "signature: want 64 bytes"))?,
    })
}

impl Sealed {
    /// The payload, if `key` signed it.
    pub fn verify<T: for<'de> Deserialize<'de>>(
        &self,
        payload_type: &str,
        key: &VerifyingKey,
    ) -> Result<T> {
        if self.payload_type != payload_type {
            let what = format!("is a {}, not a {payload_type}", self.payload_type);
            return Err(Error::corrupt(&self.object, what));
        }
        key.verify_strict(&encoded(&self.payload_type, &self.payload), &self.signature).map_err(
            |_| Error::Signature {
                object: self.object.clone(),
                why: format!("the contents were not signed by key {}", self.key_id),
            },
        )?;
        self.unverified()
    }

    /// The payload whoever signed it. Only the first entry of a policy is read so, to find the key
    /// it then must be signed by.
    pub fn unverified<T: for<'de> Deserialize<'de>>(&self) -> Result<T> {
        serde_json::from_slice(&self.payload)
            .map_err(|error| Error::corrupt(&self.object, format!("payload: {error}")))
    }
}
