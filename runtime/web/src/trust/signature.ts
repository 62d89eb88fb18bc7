/** Verifies `NAME.lime.sig`: a bundle of OpenSSF Model Signing in key mode, over one file. Normative page: docs/trust.md. */

import { Check, flag, oneOf, record, sequence, text } from "../common/checks.js";
import { fromHex, sha256 } from "../common/digests.js";
import { decodeUtf8, Json, JsonError, JsonObject, parseJson } from "../common/json.js";
import { bounded, show } from "../common/show.js";
import { PolicyError, SkillTrustError } from "../errors.js";
import { DIGEST } from "../skills/manifest.js";

const SIGNATURE_LIMIT = 64 * 2 ** 10; // bytes
const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const CURVES: Record<string, { curve: string; hash: string; size: number }> = {
  "06082a8648ce3d030107": { curve: "P-256", hash: "SHA-256", size: 32 },
  "06052b81040022": { curve: "P-384", hash: "SHA-384", size: 48 },
  "06052b81040023": { curve: "P-521", hash: "SHA-512", size: 66 },
};

/** A public key that the caller trusts, and its fingerprint. */
export interface PublicKey { id: string; key: CryptoKey; hash: string; size: number }

/** Parse a public key in PEM form. */
export async function readKey(pem: string): Promise<PublicKey> {
  const match = /^\s*-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+?)\s+-----END PUBLIC KEY-----\s*$/.exec(pem);
  if (!match) throw new PolicyError("not a public key in PEM form: openssl pkey -in KEY -pubout");
  const body = match[1]!.replace(/\s/g, "");
  const der = fromBase64(body);
  const hex = Array.from(der, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const found = Object.entries(CURVES).find(([oid]) => hex.slice(0, 80).includes(oid))?.[1];
  if (!found) throw new PolicyError("the key is of another kind; expected an elliptic curve, P-256, P-384 or P-521");
  try {
    const algorithm = { name: "ECDSA", namedCurve: found.curve };
    const key = await crypto.subtle.importKey("spki", der as BufferSource, algorithm, false, ["verify"]);
    const lines = body.match(/.{1,64}/g)!.join("\n");
    const form = `-----BEGIN PUBLIC KEY-----\n${lines}\n-----END PUBLIC KEY-----\n`;
    return { id: await sha256(new TextEncoder().encode(form)), key, hash: found.hash, size: found.size };
  } catch (error) {
    throw new PolicyError(`the key cannot be used: ${(error as Error).message}`);
  }
}

/** Check that one of the keys signed these bytes under this file name; returns its fingerprint. */
export async function verifySignature(
  data: Uint8Array, signature: Uint8Array | null, file: string, keys: readonly PublicKey[],
): Promise<string> {
  const refused = `${show(file)} is refused by the trust policy`;
  if (!signature) {
    throw new SkillTrustError(refused, [`there is no signature (${file}.sig); the policy requires one`]);
  }
  const document = parsed(signature);
  const faults: string[] = [];
  BUNDLE("bundle", document, faults);
  if (faults.length) throw new SkillTrustError("not a signature of Model Signing in key mode", bounded(faults));
  const bundle = document as JsonObject;
  const hint = at(bundle, "verificationMaterial", "publicKey", "hint") as string;
  const key = keys.find((one) => one.id === hint);
  if (!key) throw new SkillTrustError(refused, [`it is signed with the key ${hint}, which is not trusted`]);
  const envelope = at(bundle, "dsseEnvelope") as JsonObject;
  const payload = fromBase64(envelope.get("payload") as string);
  const raw = fromDer(fromBase64(((envelope.get("signatures") as Json[])[0] as JsonObject).get("sig") as string), key.size);
  const type = new TextEncoder().encode(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `);
  const message = new Uint8Array([...type, ...payload]);
  const algorithm = { name: "ECDSA", hash: key.hash };
  if (!raw || !(await crypto.subtle.verify(algorithm, key.key, raw as BufferSource, message))) {
    throw new SkillTrustError(refused, [
      `the signature was not made by the key ${key.id.slice(0, 12)} that it names, or was changed afterwards`,
    ]);
  }
  const found = await statementFaults(parsed(payload), data, file);
  if (found.length) throw new SkillTrustError(refused, bounded(found));
  return key.id;
}

async function statementFaults(statement: Json, data: Uint8Array, file: string): Promise<string[]> {
  const faults: string[] = [];
  STATEMENT("statement", statement, faults);
  if (faults.length) return faults;
  const subject = (at(statement, "subject") as Json[])[0] as JsonObject;
  const resource = (at(statement, "predicate", "resources") as Json[])[0] as JsonObject;
  const digest = resource.get("digest") as string;
  if ((await sha256(fromHex(digest))) !== at(subject, "digest", "sha256")) {
    faults.push("the signed statement contradicts itself: its digest does not match its resources");
  }
  const found = await sha256(data);
  if (found !== digest) {
    faults.push(
      `the signature is over a file with SHA-256 ${digest.slice(0, 12)}, this one has ${found.slice(0, 12)}: it was ` +
        "changed or written again after it was signed, or the signature belongs to another file",
    );
  }
  const name = subject.get("name") as string;
  if (file !== name && file !== `${found}.lime`) {
    faults.push(`it was signed as ${show(name)}, the file is called ${show(file)}: restore its name`);
  }
  return faults;
}

function parsed(bytes: Uint8Array): Json {
  try {
    if (bytes.length > SIGNATURE_LIMIT) throw new JsonError(`it has ${bytes.length} bytes; expected at most ${SIGNATURE_LIMIT}`);
    return parseJson(decodeUtf8(bytes));
  } catch (error) {
    throw new SkillTrustError("not a signature of Model Signing", [`not a bundle: ${(error as Error).message}`]);
  }
}

function at(value: Json, ...keys: string[]): Json {
  return keys.reduce<Json>((found, key) => (found as JsonObject).get(key)!, value);
}

function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

/** The two numbers of a DER signature side by side, as WebCrypto wants them; null if it is none. */
function fromDer(der: Uint8Array, size: number): Uint8Array | null {
  const raw = new Uint8Array(2 * size);
  let position = der[1] === 0x81 ? 3 : 2;
  if (der[0] !== 0x30 || der.length !== position + (der[position - 1] ?? -1)) return null;
  for (const end of [size, 2 * size]) {
    const length = der[position + 1] ?? 0;
    let number = der.subarray(position + 2, position + 2 + length);
    if (der[position] !== 2 || length < 1 || number.length !== length) return null;
    while (number.length > 1 && number[0] === 0) number = number.subarray(1);
    if (number.length > size) return null;
    raw.set(number, end - number.length);
    position += 2 + length;
  }
  return position === der.length ? raw : null;
}

const base64 = (limit: number): Check => (where, value, faults) => {
  const valid = typeof value === "string" && /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(value);
  if (!valid || !value || fromBase64(value).length > limit) {
    faults.push(`${where} is ${show(value)}; expected base64 of 1 to ${limit} bytes`);
  }
};
const ignored: Check = (where, value, faults) => {
  sequence(text(200), 64)(where, value, faults);
  if (Array.isArray(value) && value.some((path) => typeof path === "string" && /^[./\\]*$/.test(path))) {
    faults.push(`${where} excludes the signed file itself`);
  }
};
const BUNDLE = record({
  mediaType: oneOf("application/vnd.dev.sigstore.bundle.v0.3+json"),
  verificationMaterial: record({ publicKey: record({ hint: DIGEST }) }, { tlogEntries: sequence(text(0), 0) }),
  dsseEnvelope: record({
    payload: base64(SIGNATURE_LIMIT),
    payloadType: oneOf(PAYLOAD_TYPE),
    signatures: sequence(record({ sig: base64(200) }, { keyid: text(200) }), 1, 1),
  }),
});
const STATEMENT = record({
  _type: oneOf("https://in-toto.io/Statement/v1"),
  subject: sequence(record({ name: text(255, { least: 1 }), digest: record({ sha256: DIGEST }) }), 1, 1),
  predicateType: oneOf("https://model_signing/signature/v1.0"),
  predicate: record({
    resources: sequence(record({ name: oneOf("."), algorithm: oneOf("sha256"), digest: DIGEST }), 1, 1),
    serialization: record(
      { method: oneOf("files"), hash_type: oneOf("sha256"), allow_symlinks: flag },
      { ignore_paths: ignored },
    ),
  }),
});
