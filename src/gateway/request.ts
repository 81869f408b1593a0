/** Bodies of requests: bounded in size and in time, and counted while they are in memory. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { IncomingMessage } from "node:http"

/** The bodies of all waiting and running requests. */
export interface Memory {
  /** Their bytes. */
  held: number
  /** Those that arrive. */
  readonly arriving: Set<Body>
  /** Milliseconds of a clock that nobody sets. */
  readonly now: () => number
}

/** Why a body was not read. */
export type Unread =
  /** It is larger than allowed. */
  | "tooLarge"
  /** There is no room for it beside the other bodies. */
  | "full"
  /** Next to nothing of it came. */
  | "slow"

/** In each such time a body must grow by a hundredth, or at least a byte. Otherwise a few could keep all others out. */
const growsWithinMillis = 10_000
const leastGrowth = 0.01

/** Accounts for bodies, and ends those that arrive too slowly, until the scope closes. */
export const makeMemory: Effect.Effect<Memory, never, Scope.Scope> = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const memory: Memory = { held: 0, arriving: new Set(), now }
  const check = Effect.sync(() => {
    for (const body of memory.arriving) body.check()
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep("1 second"), check)))
  return memory
})

/** The body of one request. */
export class Body {
  private readonly memory: Memory
  private readonly mostHeld: number
  private readonly most: number
  private held = 0
  private give: ((body: Buffer | Unread) => void) | undefined
  private request: IncomingMessage | undefined
  /** What it was when it was last found to have grown. */
  private earlier = { held: 0, at: 0 }

  constructor(memory: Memory, mostHeld: number, most: number) {
    this.memory = memory
    this.mostHeld = mostHeld
    this.most = most
  }

  /** Reads the body, and calls `give` with it, or with the reason why it was not read. */
  read(request: IncomingMessage, give: (body: Buffer | Unread) => void): void {
    if (Number(request.headers["content-length"] ?? 0) > this.most) return give("tooLarge")
    const { memory, most } = this
    this.give = give
    this.request = request
    this.earlier = { held: 0, at: memory.now() }
    memory.arriving.add(this)
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => {
      if (this.give === undefined) return
      this.held += chunk.length
      memory.held += chunk.length
      if (this.held <= most && memory.held <= this.mostHeld) return void chunks.push(chunk)
      this.settle(this.held > most ? "tooLarge" : "full")
    })
    request.on("end", () => this.settle(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)))
  }

  /** Ends a body that has hardly grown. */
  check(): void {
    const { earlier, held } = this
    const at = this.memory.now()
    if (held - earlier.held >= Math.max(1, leastGrowth * held)) this.earlier = { held, at }
    else if (at - earlier.at >= growsWithinMillis) this.settle("slow")
  }

  private settle(body: Buffer | Unread): void {
    const { give, request } = this
    if (give === undefined) return
    this.give = undefined
    this.memory.arriving.delete(this)
    if (typeof body === "string") request?.removeAllListeners("data").pause()
    give(body)
  }

  /** Releases the memory of the body. */
  release(): void {
    this.give = undefined
    this.memory.arriving.delete(this)
    this.memory.held -= this.held
    this.held = 0
  }
}
