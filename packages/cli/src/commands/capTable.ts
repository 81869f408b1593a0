/** Caps in dollars as a table, for several commands. */
import * as Words from "floodgate/internal/words"
import { aligned, oneLine } from "@floodgate/gateway/internal/text"

/** A row of the table. */
export interface CapRow {
  readonly id?: string | undefined
  readonly name: string
  readonly spent: number
  /** The amount that running calls have reserved; undefined if it is not known. */
  readonly held?: number | undefined
  /** Undefined without a cap. */
  readonly limit?: number | undefined
  /** When the period ends, in milliseconds since the epoch. */
  readonly until?: number | undefined
}

/** The table. An id is long, and is only shown where names are not enough. */
export const lines = (caps: ReadonlyArray<CapRow>): ReadonlyArray<string> => {
  const ids = caps.some(({ id }) => id !== undefined) && new Set(caps.map(({ name }) => name)).size < caps.length
  return aligned([
    ["cap", "spent", "reserved", "of", "until", ...(ids ? ["id"] : [])],
    ...caps.map(({ held, id = "", limit, name, spent, until }) => [
      oneLine(name),
      Words.dollars(spent),
      held === undefined ? "-" : Words.dollars(held),
      limit === undefined ? "no cap" : Words.dollars(limit),
      until === undefined ? "-" : new Date(until).toISOString(),
      ...(ids ? [oneLine(id)] : [])
    ])
  ])
}

/** How many caps a status shows as text. */
export const maxShown = 20

/** The first of the caps as a table, and how many more there are; `unread` of them were not read. */
export const first = (caps: ReadonlyArray<CapRow>, unread = 0): ReadonlyArray<string> => {
  const more = unread + Math.max(0, caps.length - maxShown)
  return [...(caps.length === 0 ? [] : lines(caps.slice(0, maxShown))), ...(more === 0 ? [] : [`and ${more} more`])]
}
