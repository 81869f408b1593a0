import { assert, describe, it } from "@effect/vitest"
import { AwsStudy } from "@floodgate/lab/internal"

describe("the AWS study", () => {
  const measured = AwsStudy.study({ clients: [20, 100], runs: 20 })
  const of = (jitter: AwsStudy.Measured["jitter"], clients = 100) =>
    measured.find((one) => one.jitter === jitter && one.clients === clients)!

  it("finds that any jitter at least halves the work, and cuts the time to a fifth or less", () => {
    for (const jitter of ["full", "equal", "decorrelated", "proportional"] as const) {
      assert.isBelow(of(jitter).work, 0.6 * of("none").work, jitter)
      assert.isBelow(of(jitter).millis, 0.2 * of("none").millis, jitter)
    }
  })

  it("finds full jitter faster than equal jitter at about the same work", () => {
    assert.isBelow(of("full").millis, 0.9 * of("equal").millis)
    assert.closeTo(of("full").work / of("equal").work, 1, 0.05)
  })

  it("finds Schedule.jittered, a fifth up or down, the slowest of the jitters", () => {
    for (const jitter of ["full", "equal", "decorrelated"] as const) {
      assert.isAbove(of("proportional").millis, of(jitter).millis, jitter)
    }
  })

  it("has every client write at least once, and gives the same figures for the same seed", () => {
    for (const { clients, work } of measured) assert.isAtLeast(work, clients)
    const few = () => AwsStudy.study({ clients: [20], runs: 5 })
    assert.deepStrictEqual(few(), few())
  })
})
