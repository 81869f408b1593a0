/** Errors as the SDK passes them on. */
import * as Predicate from "effect/Predicate"

/**
 * The SDK holds an error for a timeout of its own if its text or its cause's speaks of one: it retries it, and gives its
 * caller another in its place. So these texts have a hyphen there.
 */
export const unmistakable = (error: unknown): unknown => {
  for (const one of [error, Predicate.hasProperty(error, "cause") ? error.cause : undefined]) {
    const text = String(one)
    const hyphened = text.replace(/(timed?) ?(?=out)/gi, "$1-")
    if (hyphened !== text && Predicate.isObject(one)) Object.defineProperty(one, "toString", { value: () => hyphened })
  }
  return error
}
