/** Tracks the recently admitted tokens of a provider that limits growth, for the oracle. */
import type { ProviderSim } from "floodgate/testing"

type RampOptions = NonNullable<ProviderSim.Options["ramp"]>

const minute = 60_000

/** The tokens of the last two minutes. */
export class Growth {
  private admitted: Array<{ readonly at: number; readonly tokens: number }> = []

  /** Records a call that was admitted. */
  add(at: number, tokens: number): void {
    this.admitted = this.admitted.filter((call) => call.at > at - 2 * minute)
    this.admitted.push({ at, tokens })
  }

  /**
   * Milliseconds until the call fits if nothing else is admitted: its minute holds at most `growth` times the one before,
   * or `fromPerMinute`. After a minute without any tokens every call fits.
   */
  waitMillis({ fromPerMinute, growth = 1.5 }: RampOptions, now: number, tokens: number): number {
    const fitsAt = (at: number): boolean => {
      const last = this.between(at - minute, at)
      return last === 0 || last + tokens <= Math.max(fromPerMinute, growth * this.between(at - 2 * minute, at - minute))
    }
    // Room appears only when a call becomes older than a minute.
    const times = [now, ...this.admitted.map((call) => call.at + minute).filter((at) => at > now)]
    return Math.ceil(times.find(fitsAt)! - now)
  }

  private between(after: number, until: number): number {
    return this.admitted.reduce((sum, { at, tokens }) => (at > after && at <= until ? sum + tokens : sum), 0)
  }
}
