/** Compares secrets without showing by the time of an answer how close a guess is. */
import { createHash, timingSafeEqual } from "node:crypto"

/** Secrets are compared by their hashes, which have one length. */
export const digestOf = (secret: string): Buffer => createHash("sha256").update(secret).digest()

/** Returns the function that compares a value with a secret. */
export const isSecret = (secret: string): ((given: unknown) => boolean) => {
  const expected = digestOf(secret)
  return (given) => typeof given === "string" && timingSafeEqual(digestOf(given), expected)
}
