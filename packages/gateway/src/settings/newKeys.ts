/** New keys of the gateway: for the command line, and for the page, which adds them while the gateway runs. */
import * as Schema from "effect/Schema"
import { hash, randomBytes } from "node:crypto"
import { Input } from "floodgate/internal"
import * as Values from "./values.ts"

/** So that people, and scanners for secrets, recognise a key. */
const prefix = "fg-"
/** Nobody guesses 256 bits. */
const keyBytes = 32

/** Makes a key, and the entry with its hash for the configuration. The key itself is stored nowhere. */
export const newKey = (
  name: string,
  expires: string | undefined
): { readonly key: string; readonly entry: typeof Values.Key.Type } => {
  const key = `${prefix}${randomBytes(keyBytes).toString("base64url")}`
  const sha256 = hash("sha256", key)
  return { key, entry: { name, sha256, ...(expires === undefined ? {} : { expires }) } }
}

/** Keys that were added while a gateway ran, and the rules for them. It has hashes of keys only. */
export const AddedKeys = Schema.Struct({ keys: Schema.Array(Values.Key), rules: Schema.Array(Values.Rule) })

/** Keys and rules, as `AddedKeys` describes them. */
export type AddedKeys = typeof AddedKeys.Type

/** A request of an operator: for a key, or for the end of those that were added with a name. */
export interface KeyChange {
  readonly name: string
  readonly expires?: string | undefined
  readonly dollarsPerDay?: number | undefined
  readonly priority?: number | undefined
  readonly remove?: boolean | undefined
}

/** The result of a change: a new key, which is shown only now, or how many keys were removed. */
export interface KeyChanged {
  readonly name: string
  readonly key?: string | undefined
  /** The entries of the configuration that keep the key without a state. */
  readonly config?: AddedKeys | undefined
  readonly removed?: number | undefined
}

/** Reads a change from the body of a request. Returns a text that says what is wrong with an invalid one. */
export const changeOf = (body: Record<string, unknown>): KeyChange | string => {
  const { dollarsPerDay, expires, name, priority, remove } = body
  if (typeof name !== "string" || Input.shownName(name) !== undefined || name.includes("*")) {
    return "name: expected a name of 1 to 64 characters, without *"
  }
  if (expires !== undefined && !(typeof expires === "string" && Input.isDay(expires)))
    return "expires: expected a date such as 2027-01-01"
  if (dollarsPerDay !== undefined && !(typeof dollarsPerDay === "number" && dollarsPerDay > 0)) {
    return "dollarsPerDay: expected a number > 0"
  }
  if (priority !== undefined && typeof priority !== "number") return "priority: expected a number"
  if (remove !== undefined && typeof remove !== "boolean") return "remove: expected true or false"
  return { name, expires, dollarsPerDay, priority, remove }
}
