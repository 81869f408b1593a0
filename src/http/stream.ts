/** Bodies that are passed on as they arrive, and the events of a streamed answer, which are observed on the way. */
import type * as Accounting from "../Accounting.ts"
import * as Stream from "../call/stream.ts"
import type { LlmErrorReason } from "../LlmError.ts"
import { requestIdOf } from "../protocol/errors.ts"
import type { HeaderReader } from "../protocol/headers.ts"
import type { Protocol } from "../protocol/protocol.ts"
import { makeSseFilter, type SseEvent, type SseFilter, type SseParser } from "../protocol/sse.ts"
import * as SdkErrors from "../protocol/sdkErrors.ts"
import { noAnswer } from "./noAnswer.ts"

/** Receives a body as it arrives. */
export interface ChunkFlow {
  readonly data: (chunk: Uint8Array) => void
  readonly end: () => void
  readonly broke: (thrown: unknown) => void
}

/** A body, which is passed on as it arrives. */
export interface BodyFlow {
  /** Passes the body to a flow. */
  readonly to: (flow: ChunkFlow) => void
  readonly pause: () => void
  readonly resume: () => void
}

/** Passes on a body that can only be read. */
export class ReadFlow implements BodyFlow {
  private readonly read: () => Promise<{ readonly value?: Uint8Array | undefined }>
  private receiving: ChunkFlow | undefined = undefined
  private isPaused = false
  private isReading = false

  /** `read` reads the next chunk, or undefined at the end. */
  constructor(read: () => Promise<{ readonly value?: Uint8Array | undefined }>) {
    this.read = read
  }

  to(flow: ChunkFlow): void {
    this.receiving = flow
    this.pump()
  }

  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
    this.pump()
  }

  private pump(): void {
    if (this.isReading || this.isPaused) return
    this.isReading = true
    this.read().then(this.got, this.lost)
  }

  private readonly got = ({ value }: { readonly value?: Uint8Array | undefined }): void => {
    this.isReading = false
    if (value === undefined) return this.receiving!.end()
    this.receiving!.data(value)
    this.pump()
  }

  private readonly lost = (thrown: unknown): void => this.receiving!.broke(thrown)
}

const empty = new Uint8Array(0)

export interface BodyOptions {
  readonly protocol: Protocol
  readonly header: HeaderReader
  readonly status: number
  /** Milliseconds since the epoch. */
  readonly now: number
  readonly parser: SseParser
  /** Whether to leave out the events that exist only because usage was requested. */
  readonly hidesUsage: boolean
  /** Whether the provider goes on with the answer after its reader has left. */
  readonly goesOn: boolean
  readonly observed: (actual: Accounting.Actual) => void
}

/** Reads the events of a body, chunk by chunk, and says which of its bytes are passed on. It is mutable. */
export class EventBody {
  readonly progress: Stream.StreamProgress
  private readonly options: BodyOptions
  private readonly filter: SseFilter | undefined
  private events = 0
  /** The first bytes, as long as there is no event: they tell what else the body is. */
  private start: Uint8Array = empty

  constructor(options: BodyOptions) {
    const { goesOn, hidesUsage, observed, protocol } = options
    this.options = options
    this.progress = new Stream.StreamProgress(observed, goesOn)
    this.filter = hidesUsage ? makeSseFilter((event) => protocol.usageRequest!.isExtra(event)) : undefined
  }

  /** Reads a chunk. */
  feed(chunk: Uint8Array): ReadonlyArray<Uint8Array> {
    const { parser } = this.options
    const found = parser.feed(chunk)
    for (const event of found) this.observe(event)
    if (this.events > 0) this.start = empty
    else if (this.start.length === 0) this.start = chunk
    this.progress.isOpaque = parser.hasStopped()
    return this.filter?.push(chunk, found) ?? [chunk]
  }

  /** Reads the end of the body. */
  end(): ReadonlyArray<Uint8Array> {
    const { parser } = this.options
    for (const event of parser.end()) this.observe(event)
    // An event that is too long to be parsed is still passed on.
    this.progress.isOpaque = parser.hasStopped()
    this.progress.ended(() => this.cut())
    return this.filter?.end() ?? []
  }

  /** Notes that the body broke off, because it was silent for too long or otherwise. */
  broke(thrown: unknown, isStalled: boolean): ReadonlyArray<Uint8Array> {
    const { progress } = this
    // The answer is complete; only the connection was left open.
    if (isStalled && progress.answer.complete) progress.ended(() => this.cut())
    else progress.broke(thrown, this.reasonOf(thrown, isStalled))
    return this.filter?.end() ?? []
  }

  private get requestId() {
    return { requestId: requestIdOf(this.options.header) }
  }

  private observe(event: SseEvent): void {
    if (event.data === "") return
    const { options, progress } = this
    this.events++
    progress.observe(options.protocol.observe(progress.answer, event), this.failureOf)
  }

  /** Reads the failure in an error event. */
  private readonly failureOf = (body: unknown): LlmErrorReason => {
    const { options, progress } = this
    const read = options.protocol.failure({ status: 200, header: options.header, body }, options)
    return SdkErrors.reasonOf(read, {
      ...this.requestId,
      received: progress.answer.started ? progress.received : undefined
    })
  }

  private cut(): LlmErrorReason {
    return this.events === 0
      ? noAnswer(this.options, this.start, "not a stream of events")
      : SdkErrors.interrupted("truncated", this.progress.received, this.requestId)
  }

  private reasonOf(thrown: unknown, isStalled: boolean): LlmErrorReason {
    const { received } = this.progress
    return isStalled
      ? SdkErrors.interrupted("stalled", received, this.requestId)
      : SdkErrors.fromBroken(thrown, received, this.requestId, this.options)
  }
}
