// A click on a name in a legend hides or shows its line.
for (const button of document.querySelectorAll("[data-for]")) {
  button.addEventListener("click", () => {
    const off = button.classList.toggle("off");
    const chart = button.parentElement.nextElementSibling;
    for (const series of chart.querySelectorAll(".series")) {
      if (series.dataset.series === button.dataset.for) series.classList.toggle("off", off);
    }
  });
}
