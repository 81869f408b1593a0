// Prints "N passed, N failed" over vitest's JSON results. Plain JavaScript: any Node runs it.
import { existsSync, readFileSync } from "node:fs"

let passed = 0
let failed = 0
for (const name of process.argv.slice(2)) {
  const file = `.vitest/${name}`
  // A run that did not come to its end has failed; so has a file that cannot be loaded, without a failed test.
  const { numFailedTests, numPassedTests, success } = existsSync(file)
    ? JSON.parse(readFileSync(file, "utf8"))
    : { numFailedTests: 1, numPassedTests: 0, success: false }
  passed += numPassedTests
  failed += success ? numFailedTests : Math.max(numFailedTests, 1)
}
console.log(`${passed} passed, ${failed} failed`)
