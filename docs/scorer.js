// What the site's search puts first: headings that say what one sees, then tasks; lists of names last.
var Scorer = {
  score: ([page, , anchor, , score]) => {
    const worth = [
      [/^troubleshooting/, 40], [/^tutorials\//, 12], [/^howto\//, 12], [/^explanation\//, 4],
      [/^glossary/, 2], [/^benchmarks|^reference\/(python|cli)/, -20],
    ];
    const found = worth.find(([pattern]) => pattern.test(page));
    return score + (found ? found[1] : 0);
  },
  objNameMatch: 11, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 30, partialTitle: 10, term: 5, partialTerm: 2,
};
