/**
 * The caps of a caller as the header fields `RateLimit-Policy` and `RateLimit`
 * (https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-11), which are structured fields (RFC 9651). Pure.
 */
import * as Duration from "effect/Duration"
import type * as Spending from "floodgate/Spending"

/** A cap that applies to a caller, and what is left of it. */
export interface CapPolicy extends Pick<Spending.Status, "held" | "limit" | "spent" | "until"> {
  /** The name of the policy. */
  readonly name: string
  readonly per: Spending.Cap["per"]
  /** Tells the parts of a policy apart that several agents or keys have; undefined if all callers of a rule share it. */
  readonly partition: Uint8Array | undefined
}

/** The registry has no unit for money, and quotas are integers. A call costs a fraction of a cent, so cents are too coarse. */
const quotaUnit = "microdollars"
const perDollar = 1e6

/** Whole units, rounded down. A ledger counts billionths, so rounding to those first removes the error of a binary fraction. */
const unitsOf = (dollars: number): number => Math.max(0, Math.floor(Math.round(dollars * 1e9) / (1e9 / perDollar)))

const dayInSeconds = 86_400
const secondsOf = (per: Spending.Cap["per"]): number | undefined => {
  if (per === undefined) return undefined
  if (per === "day") return dayInSeconds
  // Months differ in their lengths.
  if (typeof per === "string" && per.startsWith("month")) return undefined
  return Math.ceil(Duration.toSeconds(Duration.fromInputUnsafe(per as Duration.Input)))
}

/** A String, which has printable characters of ASCII only. All others are written as in a URL. */
const stringOf = (text: string): string => {
  const printable = text.replaceAll(/[^ -~]+/g, (part) => encodeURIComponent(part.toWellFormed()))
  return `"${printable.replaceAll(/["\\]/g, (character) => `\\${character}`)}"`
}

const bytesOf = (bytes: Uint8Array): string => `:${Buffer.from(bytes).toString("base64")}:`

/** An Item with those of its parameters that have a value, each of which is serialised already. */
const itemOf = (name: string, parameters: Readonly<Record<string, string | number | undefined>>): string =>
  Object.entries(parameters).reduce(
    (item, [key, value]) => (value === undefined ? item : `${item};${key}=${value}`),
    stringOf(name)
  )

/** The names of the fields, as Node gives those of an answer. */
export const fields = { policy: "ratelimit-policy", limits: "ratelimit" } as const

/**
 * Makes the header fields for these caps, or returns undefined if the caller has no caps. `r` is what no call has spent or reserved. `t` says when the first part of
 * what was spent is free again. It is left out if nothing was spent, if nothing ever comes back, and if `retryAfter`, in seconds, is
 * earlier: a client must not take the earlier time for the end of this policy.
 */
export const fieldsOf = (
  caps: ReadonlyArray<CapPolicy>,
  now: number,
  retryAfter: number | undefined
): Record<string, string> | undefined => {
  if (caps.length === 0) return undefined
  const policies: Array<string> = []
  const limits: Array<string> = []
  for (const { held, limit = 0, name, partition, per, spent, until } of caps) {
    const pk = partition && bytesOf(partition)
    const seconds = until === undefined || spent <= 0 ? undefined : Math.max(0, Math.ceil((until - now) / 1_000))
    const t = seconds !== undefined && seconds > (retryAfter ?? Infinity) ? undefined : seconds
    policies.push(itemOf(name, { q: unitsOf(limit), w: secondsOf(per), qu: stringOf(quotaUnit), pk }))
    limits.push(itemOf(name, { r: unitsOf(limit - spent - held), t, pk }))
  }
  return { [fields.policy]: policies.join(", "), [fields.limits]: limits.join(", ") }
}
