/**
 * The gateway's own keys. A caller that sends one is known by the key's name, and the gateway sends the provider's credential in
 * its place. The gateway knows only hashes of its keys.
 */
import type * as Schema from "effect/Schema"
import { timingSafeEqual } from "node:crypto"
import type { Refusing } from "floodgate/internal"
import { sha256Of } from "./secrets.ts"
import type * as Values from "./settings/values.ts"

/**
 * A key with which callers use the gateway. Two keys may have one name, so that a new key can replace an old one.
 *
 * @stability unstable
 * @category models
 * @since 0.4.0
 */
export interface Key extends Schema.Schema.Type<typeof Values.Key> {}

/** A caller that has sent a valid key. */
export interface KeyHolder {
  /** The hash of the key. */
  readonly id: string
  readonly name: string
}

/** The reason why a key was not accepted. Metrics count by it. */
export type DenialReason = "missing" | "several" | "unknown" | "expired"

export interface KeyDenial {
  readonly reason: DenialReason
  /** The name of a key that has expired; empty for any other reason. */
  readonly name: string
  readonly refusal: Refusing.Refusal
}

/** Checks what callers send as their credentials. */
export interface Keyring {
  readonly has: (id: string) => boolean
  readonly check: (sent: ReadonlyArray<string>, now: number) => KeyHolder | KeyDenial
}

const help = "ask whoever runs the gateway for a key"
const messages: Readonly<Record<DenialReason, string>> = {
  missing: `This gateway needs a key of its own, where your client sends the API key: ${help}`,
  several: "The request has several credentials, so it is not clear whose it is: send only the key of the gateway",
  unknown: `The gateway does not know this key, or it was removed: ${help}`,
  expired: `The key has expired: ${help}`
}

const deny = (reason: DenialReason, name = ""): KeyDenial => ({
  reason,
  name,
  refusal: { kind: "unauthorized", message: messages[reason] }
})

/** Makes a keyring of checked keys. */
export const makeKeyring = (keys: ReadonlyArray<Key>): Keyring => {
  const known = keys.map(({ expires, name, sha256 }) => ({
    holder: { id: sha256.toLowerCase(), name },
    digest: Buffer.from(sha256, "hex"),
    expires: expires === undefined ? Infinity : Date.parse(expires)
  }))
  const ids = new Set(known.map(({ holder }) => holder.id))
  return {
    has: (id) => ids.has(id),
    check: (sent, now) => {
      const [first, ...more] = sent
      if (first === undefined) return deny("missing")
      if (more.length > 0) return deny("several")
      const digest = sha256Of(first)
      let found: (typeof known)[number] | undefined
      // Every key is compared, and each in constant time, so the time of an answer does not depend on which key is nearest.
      for (const each of known) if (timingSafeEqual(each.digest, digest)) found = each
      if (found === undefined) return deny("unknown")
      return now < found.expires ? found.holder : deny("expired", found.holder.name)
    }
  }
}
