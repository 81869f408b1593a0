/** Bodies of requests, bounded in size and time, and accounted for while they are in memory. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { isUtf8 } from "node:buffer"
import type { IncomingMessage } from "node:http"
import { monotonic, JsonValues, Json } from "floodgate/internal"

// -----------------------------------------------------------------------------
// Arriving
// -----------------------------------------------------------------------------

/** The bodies of all waiting and running requests. */
export interface BodyMemory {
  /** The sum of their bytes. */
  held: number
  /** The bodies that are still arriving. */
  readonly arriving: Set<RequestBody>
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number
  /** Limits the parsing of large bodies to one at a time. */
  readonly reading: Semaphore.Semaphore
}

/** The reason why a body was not read. */
export type Unread =
  /** It is larger than allowed. */
  | "tooLarge"
  /** The other bodies leave no room for it. */
  | "full"
  /** It arrived too slowly. */
  | "slow"

/** A body must grow by 1 %, or by a byte, in each such time. Otherwise a few slow ones could keep all others out. */
const growsWithinMillis = 10_000
const minGrowth = 0.01

/** Accounts for bodies until the scope closes, and refuses those that arrive too slowly. */
export const makeMemory: Effect.Effect<BodyMemory, never, Scope.Scope> = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const now = monotonic(clock)
  const memory: BodyMemory = { held: 0, arriving: new Set(), now, reading: Semaphore.makeUnsafe(1) }
  const check = Effect.sync(() => {
    for (const body of memory.arriving) body.check()
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep("1 second"), check)))
  return memory
})

/** Smaller chunks are joined, because a body that arrives byte by byte would take a hundred times its size. */
const smallChunk = 64 * 1_024

/** Frees a chunk that was copied. The runtime would collect the garbage of the whole process for each 64 MB of them. */
const free = ({ buffer, length }: Buffer): void => {
  // Small ones may share their memory.
  if (buffer.byteLength === length && buffer instanceof ArrayBuffer) buffer.transfer(0)
}

const concat = (chunks: ReadonlyArray<Buffer>): Buffer => {
  const whole = Buffer.concat(chunks)
  for (const chunk of chunks) free(chunk)
  return whole
}

const joined = (chunks: ReadonlyArray<Buffer>): Buffer => (chunks.length === 1 ? chunks[0]! : concat(chunks))

/** Appends a chunk and joins it with small ones before it. Each byte is copied a few times at most. */
const append = (chunks: Array<Buffer>, chunk: Buffer): void => {
  let last = chunk
  for (let before = chunks.at(-1); before !== undefined; before = chunks.at(-1)) {
    if (before.length >= smallChunk || before.length > last.length) break
    chunks.pop()
    last = concat([before, last])
  }
  chunks.push(last)
}

/** The body of one request. */
export class RequestBody {
  readonly memory: BodyMemory
  private readonly maxHeld: number
  private readonly max: number
  private held = 0
  /** The chunks that have arrived. It is a field, because listeners live as long as the call and would keep it in memory. */
  private chunks: Array<Buffer> = []
  private give: ((body: Buffer | Unread) => void) | undefined
  private request: IncomingMessage | undefined
  /** The size at the last check that found growth. */
  private earlier = { held: 0, at: 0 }

  constructor(memory: BodyMemory, maxHeld: number, max: number) {
    this.memory = memory
    this.maxHeld = maxHeld
    this.max = max
  }

  /** Reads the body, and calls `give` with it, or with the reason why it was not read. */
  read(request: IncomingMessage, give: (body: Buffer | Unread) => void): void {
    if (Number(request.headers["content-length"] ?? 0) > this.max) return give("tooLarge")
    const { memory, max } = this
    this.give = give
    this.request = request
    this.earlier = { held: 0, at: memory.now() }
    memory.arriving.add(this)
    request.on("data", (chunk: Buffer) => {
      if (this.give === undefined) return
      this.held += chunk.length
      memory.held += chunk.length
      if (this.held <= max && memory.held <= this.maxHeld) return append(this.chunks, chunk)
      this.settle(this.held > max ? "tooLarge" : "full")
    })
    request.on("end", () => this.settle(joined(this.chunks)))
  }

  /** Refuses a body that has hardly grown. */
  check(): void {
    const { earlier, held } = this
    const at = this.memory.now()
    if (held - earlier.held >= Math.max(1, minGrowth * held)) this.earlier = { held, at }
    else if (at - earlier.at >= growsWithinMillis) this.settle("slow")
  }

  private settle(body: Buffer | Unread): void {
    const { give, request } = this
    if (give === undefined) return
    this.give = undefined
    this.chunks = []
    this.memory.arriving.delete(this)
    if (typeof body === "string") {
      request?.removeAllListeners("data").pause()
      this.release()
    }
    give(body)
  }

  /** Accounts for further bytes that are held until the body is released. Returns false if there is no room. */
  hold(bytes: number): boolean {
    if (this.memory.held + bytes > this.maxHeld) return false
    this.held += bytes
    this.memory.held += bytes
    return true
  }

  /** Releases the memory of the body. */
  release(): void {
    this.give = undefined
    this.chunks = []
    this.memory.arriving.delete(this)
    this.memory.held -= this.held
    this.held = 0
  }
}

// -----------------------------------------------------------------------------
// Reading
// -----------------------------------------------------------------------------

/** Values are counted in parts of this size, which take a few milliseconds each. */
const partBytes = 256 * 1_024
/** Smaller bodies are parsed at once, which takes at most a few milliseconds, whatever they contain. */
const quickBytes = 32 * 1_024
/** Larger bodies are parsed at once if they have no more values than a small one can have. */
const quickValues = 40_000

/** Whether a body is parsed at once, which costs less than turns of its own. */
export const isQuick = (bytes: Uint8Array): boolean =>
  bytes.length <= quickBytes || (bytes.length <= partBytes && JsonValues.mostValues(bytes) <= quickValues)

const textOf = (bytes: Buffer): string | undefined => (isUtf8(bytes) ? bytes.toString() : undefined)

/** The value of a body; undefined if it is not JSON in UTF-8. */
export const parse = (bytes: Buffer): unknown => Json.parseJson(textOf(bytes))

/** Runs a step in its own turn of the event loop, so that other calls are served in between. */
const inTurn = <A>(step: () => A): Effect.Effect<A> => Effect.andThen(Effect.yieldNow, Effect.sync(step))

/**
 * Parses a large body. Returns what `parsed` makes of its value, or `refused` of the number of its values if they are too many. No two
 * bodies are read in the same turn of the event loop, and only one parsed body is in memory at a time.
 */
export const readLarge = Effect.fnUntraced(function* <A>(
  { reading }: BodyMemory,
  bytes: Buffer,
  parsed: (body: unknown) => A,
  refused: (values: number) => A
) {
  const alone = reading.withPermits(1)
  const counter = new JsonValues.ValueCounter(bytes, yield* Random.nextInt)
  while (yield* alone(inTurn(() => counter.next(partBytes)))) {}
  if (counter.values > JsonValues.maxValues) return refused(counter.values)
  return yield* alone(
    inTurn(() => textOf(bytes)).pipe(
      Effect.flatMap((text) => inTurn(() => Json.parseJson(text))),
      Effect.flatMap((body) => inTurn(() => parsed(body)))
    )
  )
})
