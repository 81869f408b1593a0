/** Compares secrets without showing by the time of an answer how close a guess is. */
import { hash, timingSafeEqual } from "node:crypto"

/** Secrets are compared by their hashes, which have one length. */
export const sha256Of = (secret: string): Buffer => hash("sha256", secret, "buffer")

/** Returns the function that compares a value with a secret. */
export const isSecret = (secret: string): ((given: unknown) => boolean) => {
  const expected = sha256Of(secret)
  return (given) => typeof given === "string" && timingSafeEqual(sha256Of(given), expected)
}
