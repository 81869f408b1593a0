/**
 * Writes responses as fast as their clients read, and keeps them alive while there is nothing to write.
 *
 * Clients give up after some minutes of silence, even after the headers: the SDKs of OpenAI and Anthropic after about 5, others
 * earlier. A few bytes every ten seconds, which they skip, make them wait for ten minutes and more.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http"
import { Bounds, monotonic, Silence } from "floodgate/internal"
import type { ByteSource } from "./transport.ts"

/** A client that reads nothing for this long has disappeared, or tries to occupy memory. */
const longestStall = Duration.millis(Bounds.bounds.unreadTime.max)

/**
 * The maximum that is written of a body at once. A client that reads such a piece in time has not stalled, so that it may take as
 * long as it needs for a large body.
 */
const pieceBytes = 256 * 1_024

/** Waits until the client has read what was written, and disconnects it if it stalls. */
const progress = (response: ServerResponse, event: "drain" | "finish"): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const done = () => resume(Effect.void)
    if (event === "drain" ? !response.writableNeedDrain : response.writableFinished) return done()
    response.once(event, done)
    return Effect.sync(() => void response.off(event, done))
  }).pipe(
    Effect.timeoutOrElse({
      duration: longestStall,
      // Destroying the response interrupts the fiber of the request.
      orElse: () =>
        Effect.andThen(
          Effect.sync(() => response.destroy()),
          Effect.never
        )
    })
  )

/** Writes to a response. Completes when the client can take more. */
export const write = (response: ServerResponse, chunk: Uint8Array | string): Effect.Effect<void> =>
  Effect.suspend(() => (response.write(chunk) ? Effect.void : progress(response, "drain")))

/** How long the rest of a request is read after the answer. */
const longestRest = Duration.seconds(30)

/** Reads and drops the rest of a request. Ends early if nothing arrives. */
const discarded = (request: IncomingMessage): Effect.Effect<void> => {
  const ended = Effect.callback<void>((resume) => {
    const done = () => resume(Effect.void)
    request.once("end", done).resume()
    return Effect.sync(() => void request.off("end", done))
  })
  const read = Effect.sync(() => request.socket.bytesRead)
  const stalled = Effect.gen(function* () {
    for (let before = -1, now = yield* read; now > before; now = yield* read) {
      before = now
      yield* Effect.sleep("1 second")
    }
  })
  return Effect.raceFirst(ended, Effect.asVoid(Effect.timeoutOption(stalled, longestRest)))
}

/**
 * Ends a response. Completes when all of it has been handed to the network, because the end of the process or the connection would
 * cut off the rest.
 *
 * A client that is still sending its body gets the answer at once, and the rest of the body is read before the connection is closed.
 * Many clients read nothing before they have sent everything, and a connection that is closed while data arrives is reset, which
 * loses the answer.
 */
export const end = Effect.fnUntraced(function* (response: ServerResponse, body: Uint8Array | string = "") {
  let rest = typeof body === "string" ? Buffer.from(body) : body
  for (; rest.length > pieceBytes; rest = rest.subarray(pieceBytes)) {
    yield* write(response, rest.subarray(0, pieceBytes))
  }
  if (response.req.complete) response.end(rest)
  else {
    response.flushHeaders()
    if (rest.length > 0) yield* write(response, rest)
    yield* discarded(response.req)
    response.end()
  }
  // Small answers are taken by the system in this turn of the event loop, so that most need no timer.
  yield* Effect.yieldNow
  if (!response.writableFinished) yield* progress(response, "finish")
})

/** Ends the answers of clients that read nothing for too long. */
class Stall extends Silence.SilentStream {
  private readonly response: ServerResponse

  constructor(response: ServerResponse, now: number) {
    super({ silence: longestStall, stalled: () => Effect.undefined })
    this.response = response
    this.silentSince = now
  }

  stall(): void {
    this.response.destroy()
  }
}

/** Calls a function when the client has read what was written, and disconnects the client if it stalls. */
export const whenRead = (
  timer: Silence.SilenceTimer,
  response: ServerResponse,
  event: "drain" | "finish",
  done: () => void
): void => {
  const stall = new Stall(response, timer.now())
  timer.add(stall)
  const over = (): void => {
    timer.remove(stall)
    response.off("close", over).off(event, read)
  }
  const read = (): void => {
    over()
    done()
  }
  response.on("close", over).on(event, read)
}

/** Ends a response whose request was read, if one write can do it. Returns false if nothing was written. */
export const endAtOnce = (
  timer: Silence.SilenceTimer,
  response: ServerResponse,
  done: () => void,
  body: Uint8Array = new Uint8Array(0)
): boolean => {
  if (!response.req.complete || body.length > pieceBytes) return false
  response.end(body)
  // The system usually takes a small answer at once.
  if (response.writableLength === 0) response.once("finish", done)
  else whenRead(timer, response, "finish", done)
  return true
}

/** The header fields in which a response states the caps of its caller, once they are known. */
const stated = new WeakMap<ServerResponse, (retryAfter: number | undefined) => OutgoingHttpHeaders | undefined>()

/**
 * Makes a response state something in the fields that a function returns when its headers are sent. It gets the `retry-after` in
 * seconds, if there is one.
 */
export const states = (
  response: ServerResponse,
  fieldsOf: (retryAfter: number | undefined) => OutgoingHttpHeaders | undefined
): void => void stated.set(response, fieldsOf)

/** Sends the status and the headers of a response. What it states replaces headers of the same names. */
export const begin = (
  response: ServerResponse,
  status: number,
  headers: OutgoingHttpHeaders,
  phrase?: string
): void => {
  const fieldsOf = stated.get(response)
  if (fieldsOf !== undefined) Object.assign(headers, fieldsOf(secondsOf(headers["retry-after"])))
  if (phrase === undefined) response.writeHead(status, headers)
  else response.writeHead(status, phrase, headers)
}

/** A `retry-after` in seconds; undefined for none, and for a date. */
const secondsOf = (retryAfter: OutgoingHttpHeaders[string]): number | undefined =>
  /^\d+$/.test(String(retryAfter)) ? Number(retryAfter) : undefined

/** Answers with a whole response. */
export const whole = (
  response: ServerResponse,
  status: number,
  headers: OutgoingHttpHeaders,
  body: string
): Effect.Effect<void> =>
  Effect.suspend(() => {
    begin(response, status, { ...headers, "content-length": Buffer.byteLength(body) })
    return end(response, body)
  })

/** Answers with text of the gateway itself, which no cache may keep. */
export const own = (
  response: ServerResponse,
  status: number,
  body: string,
  contentType = "text/plain; charset=utf-8"
): Effect.Effect<void> =>
  whole(
    response,
    status,
    { "content-type": contentType, "cache-control": "no-store", "x-content-type-options": "nosniff" },
    body
  )

/** Answers with JSON of the gateway itself. */
export const json = (response: ServerResponse, status: number, body: object): Effect.Effect<void> =>
  own(response, status, JSON.stringify(body), "application/json")

/** Answers why the gateway itself cannot do what was asked. */
export const failed = (response: ServerResponse, status: number, error: string): Effect.Effect<void> =>
  json(response, status, { error })

/** Writes a body to its end, or until the client must read first. */
const flow = async (response: ServerResponse, { read }: ByteSource): Promise<"over" | "full"> => {
  for (;;) {
    const chunk = await read()
    if (chunk === undefined) return "over"
    if (!response.write(chunk)) return "full"
  }
}

/** Writes a body to its end. If the body breaks off, so does the connection to the client, and `broke` is called. */
export const relay = (response: ServerResponse, source: ByteSource, broke: () => void): Effect.Effect<void> =>
  relayed(response, source).pipe(
    Effect.catch(() =>
      Effect.sync(() => {
        broke()
        response.destroy()
      })
    ),
    Effect.onInterrupt(() => Effect.sync(() => source.cancel("the client hung up")))
  )

const relayed = Effect.fnUntraced(function* (response: ServerResponse, source: ByteSource) {
  while ((yield* Effect.tryPromise(() => flow(response, source))) === "full") yield* progress(response, "drain")
  return yield* end(response)
})

/** A response that may have to begin before its outcome is known. */
export interface HeldResponse {
  readonly response: ServerResponse
  readonly contentType: string
  /** The text that keeps it alive, which clients skip. */
  readonly text: string
  /** Whether the response has begun. */
  began: boolean
  /** Whether it must not begin yet, because its call may still be refused, and nothing but its status could say so. */
  isHeldBack: boolean
}

/** Keeps responses alive, from when they are added until they are removed. */
export interface Keeper {
  readonly add: (held: HeldResponse) => void
  readonly remove: (held: HeldResponse) => void
}

/** How often responses are checked within an interval; at least once a second. */
const checksPerInterval = 4

/**
 * Makes a keeper. It sends nothing for `silence`, or while a response is held back, so that the response can still have the provider's
 * status or that of a refusal, and then the text in intervals of `every`. One timer serves all responses, so that quick answers cost nothing.
 */
export const makeKeeper = Effect.fnUntraced(function* (
  silence: Duration.Duration,
  every: Duration.Duration,
  began: (held: HeldResponse) => void
): Effect.fn.Return<Keeper, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = monotonic(clock)
  const [silenceMillis, everyMillis] = [Duration.toMillis(silence), Duration.toMillis(every)]
  /** The time at which each response gets its next text. */
  const due = new Map<HeldResponse, number>()
  const keep = (held: HeldResponse): void => {
    const { contentType, response, text } = held
    if (!held.began) {
      begin(response, 200, { "content-type": contentType, "cache-control": "no-cache" })
      held.began = true
      began(held)
    }
    // A client that is not reading has unread text already.
    if (!response.writableNeedDrain) response.write(text)
  }
  const tick = Effect.sync(() => {
    const at = now()
    for (const [held, when] of due) {
      if (when > at || held.isHeldBack) continue
      due.set(held, at + everyMillis)
      keep(held)
    }
  })
  const pause = Effect.sleep(Math.min(1_000, silenceMillis / checksPerInterval, everyMillis / checksPerInterval))
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(pause, tick)))
  return {
    add: (held) => void due.set(held, now() + silenceMillis),
    remove: (held) => void due.delete(held)
  }
})
