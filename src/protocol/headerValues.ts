/** Reads the headers of a response, and the numbers and times in them. */
import { maxAmount } from "./json.ts"
import type { HeaderReader } from "./models.ts"

/** Reads from a `Headers` object, or from a record with names in lower case. Values of other types count as absent. */
export const headerReader = (source: object): HeaderReader => {
  // The source may be any object; its properties are only read, and checked before use.
  const record = source as { readonly get?: unknown } & Readonly<Record<string, unknown>>
  const valueOf = (value: unknown): string | undefined => {
    if (typeof value === "string") return value
    return Array.isArray(value) ? value.join(", ") : undefined
  }
  const { get } = record
  const read: ListedReader =
    typeof get === "function"
      ? (name) => valueOf(get.call(record, name))
      : (name) => {
          const value = record[name]
          // Most headers are absent, so that is checked first.
          return value !== undefined && Object.hasOwn(record, name) ? valueOf(value) : undefined
        }
  read.source = source
  return read
}

/** A reader that knows what it reads from. */
interface ListedReader extends HeaderReader {
  source?: object
}

/** More headers than a response has. */
const maxNames = 1_000

/** The names of the headers, as far as they can be listed. */
export const namesOf = (header: HeaderReader): ReadonlyArray<string> => {
  const { source = {} } = header as ListedReader
  const names = source instanceof Headers ? Array.from(source.keys()) : Object.keys(source)
  return names.slice(0, maxNames)
}

/** A plain decimal number that is neither negative nor absurd. */
export const numberOf = (text: string | null | undefined): number | undefined => {
  if (text === undefined || text === null) return undefined
  const trimmed = text.trim()
  if (!/^\d{1,16}(\.\d{1,9})?$/.test(trimmed)) return undefined
  const value = Number(trimmed)
  return value <= maxAmount * 10 ? value : undefined
}

const httpDate = /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/

export const dateOf = (text: string | null | undefined): number | undefined => {
  const trimmed = text?.trim() ?? ""
  const millis = httpDate.test(trimmed) ? Date.parse(trimmed) : NaN
  return Number.isNaN(millis) ? undefined : millis
}

/** The time of a response by the provider's clock, or `now` if the response has none. */
export const timeOf = (header: HeaderReader, now: number): number => dateOf(header("date")) ?? now

/** A time as seconds since the epoch, or as in RFC 3339. */
export const epochMillis = (text: string | null | undefined): number | undefined => {
  const seconds = numberOf(text)
  const millis = seconds === undefined ? Date.parse(text ?? "") : seconds * 1_000
  return millis > 0 && millis < maxEpochMillis ? millis : undefined
}
/** The year 5138. */
const maxEpochMillis = 1e14
