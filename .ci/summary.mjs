// Prints "N passed, N failed" from vitest's JSON results. Plain JavaScript: any Node runs it.
import { readFileSync } from "node:fs"

const { numFailedTests, numPassedTests, success } = JSON.parse(readFileSync(process.argv[2], "utf8"))
// A file that cannot be loaded fails without a failed test.
console.log(`${numPassedTests} passed, ${success ? numFailedTests : Math.max(numFailedTests, 1)} failed`)
