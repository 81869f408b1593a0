/**
 * Measures how many calls of a pool may be in flight, from what this process hears of its own calls.
 *
 * It is not part of the shared state: processes that share a server hold equal parts of its queue, each by its own measure.
 */
import * as Measured from "../pacing/measured.ts"

/** A call of a pool that measures. It is mutable. */
export class MeasuredCall implements Measured.CallTimes {
  readonly sentAt: number
  beganAt: number | undefined = undefined
  output = 0
  /** Whether its caller has stopped waiting for it, or the provider has failed. */
  isLost = false
  private readonly measuring: Measuring

  constructor(measuring: Measuring, sentAt: number) {
    this.measuring = measuring
    this.sentAt = sentAt
  }

  /** Its answer has so many tokens so far, by the provider's count or by their length. */
  counted(outputTokens: number): void {
    if (outputTokens > 0) this.output = outputTokens
  }

  /** It has ended, as one of `inFlight`. The measurement that it was sent under may have been replaced. */
  ended(isAnswered: boolean, inFlight: number): void {
    this.measuring.ended(this, isAnswered, inFlight)
  }

  /** So many tokens of its answer have arrived, and more may follow. */
  heard(outputTokens: number): void {
    this.counted(outputTokens)
    if (!(outputTokens > 0) || this.beganAt !== undefined) return
    this.beganAt = this.measuring.now()
    this.measuring.began(this)
  }
}

export class Measuring {
  readonly now: () => number
  private state: Measured.Measurement
  /** Called when a call has begun, which may make room for others. */
  private readonly heard: () => void

  constructor(now: () => number, heard: () => void) {
    this.now = now
    this.heard = heard
    this.state = Measured.make(now())
  }

  get limit(): number {
    return Measured.limit(this.state)
  }

  /** The status, while so many calls are in flight, with the stated maximum. */
  status(inFlight: number, max: number): Measured.MeasuredStatus {
    return Measured.statusOf(this.state, inFlight, max)
  }

  sent(): MeasuredCall {
    return new MeasuredCall(this, this.now())
  }

  began({ sentAt }: MeasuredCall): void {
    this.state = Measured.began(this.state, sentAt, this.now())
    this.heard()
  }

  /** A call has ended, which was one of `inFlight`. */
  ended(call: MeasuredCall, isAnswered: boolean, inFlight: number): void {
    const failed = call.isLost ? "lost" : "left"
    this.state = Measured.ended(this.state, call, isAnswered ? "answered" : failed, inFlight, this.now())
  }
}
