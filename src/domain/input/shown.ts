/** Formats arguments for errors: in one line, bounded in length, and without secrets. */
import * as Duration from "effect/Duration"
import * as Redacted from "effect/Redacted"

const maxText = 40
const maxWhole = 80
const maxItems = 5
const maxDepth = 2

/** Texts that may be keys or passwords, given in the wrong place: prefixes of providers, addresses with a password, long random texts. */
const secrets = [
  /^(sk|pk|rk|gsk|xai|hf|pplx|ghp|aiza|akia|eyj|bearer|basic)[-_ ]?\S{6}/i,
  /[?&#]\S*=|\S@\S/,
  /(?=\w*\d)[A-Za-z\d_+/=]{20,}/
]
const secretName = /key|token|secret|password|authorization|cookie|credential/i
/** Names such as `inputTokens` and `maxTokens`, which are no secrets. */
const countName = /tokens$|^(is|has)/i

/** A pattern takes time that grows with the square of a text, and no more than its beginning is shown. */
const maxSearched = 256

const mayBeSecret = (given: string): boolean => {
  const text = given.slice(0, maxSearched)
  return secrets.some((pattern) => pattern.test(text)) || /[\da-f]{20}/i.test(text.replaceAll("-", ""))
}

const text = (value: string): string => {
  if (mayBeSecret(value)) return `a text of ${value.length} characters (not shown)`
  return JSON.stringify(value.length > maxText ? `${value.slice(0, maxText)}...` : value)
}

const list = (parts: ReadonlyArray<string>, size: number): string =>
  [...parts, ...(size > parts.length ? ["..."] : [])].join(", ")

const isPlain = (value: object): boolean => {
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype
}

const entry = ([name, value]: readonly [string, unknown], depth: number): string => {
  const key = /^[\w$]+$/.test(name) && !mayBeSecret(name) ? name : text(name)
  const isHidden = typeof value === "string" && secretName.test(name) && !countName.test(name)
  return `${key}: ${isHidden ? "(not shown)" : inner(value, depth + 1)}`
}

const object = (value: object, depth: number): string => {
  if (Array.isArray(value)) {
    if (depth >= maxDepth) return "[...]"
    return `[${list(
      value.slice(0, maxItems).map((each) => inner(each, depth + 1)),
      value.length
    )}]`
  }
  if (Duration.isDuration(value)) return Duration.format(value)
  if (Redacted.isRedacted(value)) return "a redacted value"
  if (!isPlain(value)) return `an object of the class ${value.constructor.name || "without a name"}`
  const entries = Object.entries(value)
  if (entries.length === 0) return "{}"
  if (depth >= maxDepth) return "{ ... }"
  return `{ ${list(
    entries.slice(0, maxItems).map((each) => entry(each, depth)),
    entries.length
  )} }`
}

const inner = (value: unknown, depth: number): string => {
  switch (typeof value) {
    case "string":
      return text(value)
    case "bigint":
      return `${value}n`
    case "function":
      return "a function"
    case "object":
      return value === null ? "null" : object(value, depth)
    default:
      return Object.is(value, -0) ? "-0" : String(value)
  }
}

/** Formats a value for an error. */
export const shown = (value: unknown): string => {
  try {
    const whole = inner(value, 0)
    return whole.length > maxWhole ? `${whole.slice(0, maxWhole - 3)}...` : whole
  } catch {
    // A getter or a proxy threw.
    return "an object that cannot be read"
  }
}
