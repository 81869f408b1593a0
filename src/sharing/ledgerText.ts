/**
 * The state of a ledger as text, and back.
 *
 * The key of a ledger has no version, because processes of two versions that are updated one after the other must keep one cap.
 * An earlier version keeps what a later one has added to the text.
 */
import type { Account, CapInUnits, Period } from "../domain/spending/ledger.ts"
import { isZone, type Month } from "../domain/spending/months.ts"
import type { LedgerMember, LedgerPart, LedgerState } from "./ledger.ts"
import { amount, each, lasting, list, number, object, oneOf, optional, past, record, share, within } from "./readers.ts"
import type { Reader } from "./readers.ts"
import * as Read from "./readers.ts"

/** Incremented when earlier versions must not touch a state any more. They refuse it then, instead of replacing it. */
const format = 2

/** The format of a state. Versions before 0.5 know no months. */
const formatOf = ({ config }: LedgerState): number => (config.period._tag === "Month" ? format : 1)

const prefix = "ledger:"

/** The key of a ledger in a store. */
export const keyOf = (name: string): string => `${prefix}${name}`

/** The name of the ledger of a key; undefined if it is the key of something else. */
export const nameOf = (key: string): string | undefined =>
  key.startsWith(prefix) ? key.slice(prefix.length) : undefined

/** The most parts that an account has: those of a window, and some from an earlier period. */
const maxCells = 1_000

const monthOf = object<Month>({
  day: within(1, 31),
  zone: (value, name) => {
    if (typeof value !== "string" || !isZone(value)) throw new Read.Damaged(`${name} is not a time zone`)
    return value
  }
})

const period: Reader<Period> = (value, name, now) => {
  const { _tag: tag, millis, ...month } = Read.recordOf(value, name)
  const _tag = oneOf("Ever", "Day", "Month", "Window")(tag, name, now)
  if (_tag === "Month") return { _tag, ...monthOf(month, name, now) }
  return _tag === "Window" ? { _tag, millis: Read.period(millis, name, now) } : { _tag }
}

const config = object<CapInUnits>({ limit: Read.amountOrMore, period, reserve: oneOf("most", "expected") })

const account = object<Account>({
  total: number,
  cells: list(
    object({
      ends: (value, name, now) => (value === null ? null : Read.utc(value, name, now)),
      amount
    }),
    maxCells
  )
})

const part = object<LedgerPart>({ of: share, amount, ...each(lasting, "fromMillis", "untilMillis") })

/** A state as it is stored. */
interface StoredLedger extends Omit<LedgerState, "isAlone"> {
  readonly format: number
}

const state = object<StoredLedger>({
  ...Read.shared(config),
  format: Read.formatUpTo(format),
  law: object({
    lag: lasting,
    offset: Read.utc,
    utc: Read.utcOrNever,
    gone: record(account),
    lostAt: optional(past)
  }),
  members: record(object<LedgerMember>({ ...Read.member(amount, amount), account, part: optional(part) }))
})

export const encode = (state: LedgerState): string => {
  const { isAlone: _, ...stored } = state
  // An earlier text may have had another format.
  return JSON.stringify(Object.assign({ format }, stored, { format: formatOf(state) }))
}

/** Reads a state. Throws `Damaged` if no process can have written the text, and `TooNew` if a later version has. */
export const decode = (encoded: string): LedgerState => {
  const stored = Read.decoded(encoded, state)
  for (const member of Object.values(stored.members)) Read.checkMember(member, stored)
  return { ...stored, isAlone: undefined }
}
