/**
 * The parts of the lab that the command `floodgate` and our tests use. They are not part of the public API and change without notice, so
 * the command requires the exact version of the lab that it was built with.
 *
 * @since 0.5.0
 */
export * as AgentsAtWork from "./sessions/document.ts"
export * as AwsStudy from "./awsStudy.ts"
export * as Document from "./document.ts"
export * as Floor from "./floor.ts"
export * as Matrix from "./matrix.ts"
export * as Race from "./race.ts"
export * as Recorded from "./recorded.ts"
export * as Report from "./report/index.ts"
export * as Scenario from "./scenario.ts"
export * as Scenarios from "./scenarios.ts"
export * as Strategies from "./strategies/index.ts"
export * as Strategy from "./strategy.ts"
export * as Table from "./table.ts"
