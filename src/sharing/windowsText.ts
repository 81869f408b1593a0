/** The record of an account's long windows as text, and back. Its key has no version: a later version's record is left alone. */
import { amount, flag, list, object, optional, record, text, utc, within } from "./readers.ts"
import * as Read from "./readers.ts"

const format = 1

/** The key of an account's record in a store. */
export const keyOf = (account: string): string => `windows:${account}`

export interface RecordedWindow {
  readonly used: number
  readonly resetsAt: number
  readonly isRejected: boolean
  readonly size: number | undefined
  readonly models: ReadonlyArray<string> | undefined
  /** When it was told. All times are milliseconds since the epoch, by the clock of the store. */
  readonly at: number
}

export interface WindowsRecord {
  readonly windows: Readonly<Record<string, RecordedWindow>>
  /** The amounts that all processes have spent of each window since the record began. */
  readonly spent: Readonly<Record<string, number>>
  /** When the process that has tried a spent window last tries again. */
  readonly tries: { readonly at: number; readonly by: string } | undefined
  /** By process: when it was there last. */
  readonly processes: Readonly<Record<string, number>>
}

/** The record of an account that nobody has used. */
export const nothing: WindowsRecord = { windows: {}, spent: {}, tries: undefined, processes: {} }

const stored = object<WindowsRecord & { readonly format: number }>({
  format: Read.formatUpTo(format),
  windows: record(
    object<RecordedWindow>({
      used: within(0, 1_000),
      resetsAt: utc,
      isRejected: flag,
      size: optional(within(Number.MIN_VALUE, Read.maxNumber)),
      models: optional(list(text, 100)),
      at: utc
    })
  ),
  spent: record(amount),
  tries: optional(object<{ at: number; by: string }>({ at: utc, by: text })),
  processes: record(utc)
})

export const encode = (all: WindowsRecord): string => JSON.stringify({ format, ...all })

/** Reads a record. Throws `Damaged` if no process can have written the text, and `TooNew` if a later version has. */
export const decode = (encoded: string): WindowsRecord => {
  const { processes, spent, tries, windows } = stored(Read.parsed(encoded), "record", 0)
  return { windows, spent, tries, processes }
}
