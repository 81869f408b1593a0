/**
 * Bounds on what comes from outside: bodies, headers, names and times. The code takes its limits from this table, and a test
 * compares the tables of `SECURITY.md` and `docs/evidence.md` with it.
 */

import { thousands } from "./words.ts"

const mebibyte = 1_024 * 1_024
const second = 1_000
const minute = 60 * second

/** A bound, and what happens beyond it. */
interface OuterBound {
  readonly what: string
  readonly max: number
  readonly unit: "bytes" | "milliseconds" | "count"
  readonly beyond: string
}

export const bounds = {
  /** Larger than any answer with images. Without a bound, a few compressed KB could unpack to more than the memory. */
  answer: {
    what: "a whole answer to `floodgate/fetch` or the gateway, unpacked",
    max: 32 * mebibyte,
    unit: "bytes",
    beyond: "it is passed on unread, and its call keeps its estimate"
  },
  error: { what: "the body of an error, the same", max: mebibyte, unit: "bytes", beyond: "the error has no text" },
  /** With that many, the largest bodies take 42 MB, and the slowest about 150 ms to parse. */
  values: {
    what: "JSON values in a body",
    max: 400_000,
    unit: "count",
    beyond: "a request is answered with 413, an answer is passed on unread"
  },
  pieces: {
    what: "pieces of a stream before its first content",
    max: 1_000,
    unit: "count",
    beyond: "it is passed on as it comes, and not retried"
  },
  body: {
    what: "the body of a request to the gateway (`maxBodyBytes`)",
    max: 32 * mebibyte,
    unit: "bytes",
    beyond: "413"
  },
  bodies: {
    what: "all bodies that the gateway holds (`maxHeldBytes`)",
    max: 256 * mebibyte,
    unit: "bytes",
    beyond: "503, or the answer is passed on unread"
  },
  headerBytes: {
    what: "the headers of a request to the gateway, or of an answer to it",
    max: 64 * 1_024,
    unit: "bytes",
    beyond: "431, or 502"
  },
  /** More than any client sends. Node reads no further lines. */
  headerLines: { what: "lines of the headers of a request", max: 1_000, unit: "count", beyond: "400 or 431" },
  connections: {
    what: "connections to the gateway (`maxConnections`)",
    max: 10_000,
    unit: "count",
    beyond: "further ones are closed"
  },
  /** Common clients send none. */
  ahead: {
    what: "requests that wait on one connection",
    max: 16,
    unit: "count",
    beyond: "the connection is closed"
  },
  headersTime: { what: "the time for the headers of a request", max: 20 * second, unit: "milliseconds", beyond: "408" },
  requestTime: { what: "the time for a whole request", max: 5 * minute, unit: "milliseconds", beyond: "408" },
  /** A client that reads nothing for this long has disappeared, or tries to occupy memory. */
  unreadTime: {
    what: "the time in which a client reads nothing of its answer",
    max: minute,
    unit: "milliseconds",
    beyond: "it is disconnected"
  },
  /** Node's `fetch` waits 5 minutes for the status of an answer, and the SDKs of OpenAI and Anthropic for 10. */
  moneyTime: {
    what: "the wait of a call without a stream for reserved money",
    max: 4 * minute,
    unit: "milliseconds",
    beyond: "402"
  },
  /** Callers can invent agents, and all of them are written to a file. One that was forgotten would have its whole cap again. */
  spenders: {
    what: "agents and keys that have spent part of a cap of their own",
    max: 20_000,
    unit: "count",
    beyond: "new ones get 402"
  },
  viewers: { what: "browsers that show the gateway's page", max: 20, unit: "count", beyond: "503" }
} as const satisfies Readonly<Record<string, OuterBound>>

const amount = ({ max, unit }: OuterBound): string => {
  if (unit === "count") return thousands(max)
  if (unit === "bytes") return max < mebibyte ? `${max / 1_024} KiB` : `${max / mebibyte} MiB`
  return max < minute ? `${max / second} s` : `${max / minute} min`
}

/** The table as the documents have it. */
export const boundsTable = (): string =>
  [
    "| bound of | at most | beyond it |",
    "| --- | --- | --- |",
    ...Object.values(bounds).map((bound) => `| ${bound.what} | ${amount(bound)} | ${bound.beyond} |`)
  ].join("\n")
