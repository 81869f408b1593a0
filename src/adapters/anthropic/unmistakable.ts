/** Rewords errors that Anthropic's SDK would take for its own timeouts. */
import * as Predicate from "effect/Predicate"

/**
 * Puts a hyphen into "timeout" and "timed out" in the text of an error and of its cause. The SDK takes an error with these words
 * for a timeout of its own: it retries the call and replaces the error.
 */
export const unmistakable = (error: unknown): unknown => {
  for (const one of [error, Predicate.hasProperty(error, "cause") ? error.cause : undefined]) {
    const text = String(one)
    const hyphened = text.replace(/(timed?) ?(?=out)/gi, "$1-")
    if (hyphened !== text && Predicate.isObject(one)) Object.defineProperty(one, "toString", { value: () => hyphened })
  }
  return error
}
