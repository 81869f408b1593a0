/** Changes errors so that the SDK passes them on. */
import * as Predicate from "effect/Predicate"

/**
 * If the text of an error or of its cause contains "timeout" or "timed out", the SDK takes it for a timeout of its own: it
 * retries the call and replaces the error. So these texts get a hyphen.
 */
export const unmistakable = (error: unknown): unknown => {
  for (const one of [error, Predicate.hasProperty(error, "cause") ? error.cause : undefined]) {
    const text = String(one)
    const hyphened = text.replace(/(timed?) ?(?=out)/gi, "$1-")
    if (hyphened !== text && Predicate.isObject(one)) Object.defineProperty(one, "toString", { value: () => hyphened })
  }
  return error
}
