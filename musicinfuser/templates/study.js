"use strict";
(() => {
  const study = JSON.parse(document.getElementById("study").textContent);
  const byId = (id) => document.getElementById(id);
  const figures = [...document.querySelectorAll("figure")];
  const videos = figures.map((figure) => figure.querySelector("video"));
  const letters = ["A", "B"];
  const choices = study.forced ? ["left", "right"] : ["left", "tie", "right"];
  const labels = { left: "A", tie: "Same", right: "B" };
  const columns = ["study", "seed", "rater", "order", "pair", "question", "left", "right", "choice",
    "ms", "plays_left", "plays_right", "check"];
  let rater = null, trials = [], progress = null, current = 0, shownAt = 0, canStore = true;

  // ---- progress, kept by the browser
  const storeKey = () => `dance-study/${study.study}/${rater}`;
  function load() {
    let saved = null;
    try { saved = JSON.parse(localStorage.getItem(storeKey())); } catch { canStore = false; }
    return saved && Array.isArray(saved.trials) ? saved : { at: 0, trials: [] };
  }
  function save() {
    try { localStorage.setItem(storeKey(), JSON.stringify(progress)); canStore = true; }
    catch {
      canStore = false;
      notice("This browser keeps no progress: finish without closing the page, or download your answers before.");
    }
  }
  function notice(text) { byId("notice").textContent = text; byId("notice").hidden = !text; }
  addEventListener("storage", (event) => {
    if (rater !== null && event.key === storeKey()) {
      notice("This study is open in another tab as well; go on in one of them and reload it first.");
    }
  });
  addEventListener("beforeunload", (event) => {
    if (!canStore && progress && progress.at > 0) event.preventDefault();
  });

  // ---- the vote file
  function check(fields) {
    let hash = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(fields.join(","))) {
      hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
    }
    return hash.toString(16).padStart(8, "0");
  }
  function voteFile() {
    const lines = [columns.join(",")];
    progress.trials.slice(0, progress.at).forEach((record, index) => {
      const [item, left, right] = trials[index];
      for (const [question] of study.questions) {
        const answer = record.answers[question];
        if (!answer) continue;
        const fields = [study.study, study.seed, rater, index + 1, study.items[item], question,
          study.clips[left], study.clips[right], answer.choice, Math.round(answer.ms),
          ...record.plays];
        lines.push([...fields, check(fields)].join(","));
      }
    });
    return lines.join("\n") + "\n";
  }
  const fileName = () => `votes_${study.study}_rater${rater}.csv`;
  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([voteFile()], { type: "text/csv" }));
    link.download = fileName();
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  // ---- one pair
  const record = () => progress.trials[progress.at];
  const isWatched = () => record().plays.every((count) => count > 0);
  const isAnswered = () => study.questions.every(([name]) => record().answers[name]);
  const elapsed = () => record().ms + performance.now() - shownAt;
  const source = (clip) => `media/${study.clips[clip]}.mp4`;

  function stop(side) {
    videos[side].pause();
    if (videos[side].currentTime > 0) videos[side].currentTime = 0;
    figures[side].classList.remove("playing");
  }
  function play(side) {
    stop(1 - side);
    const video = videos[side];
    if (!video.paused) return;
    video.muted = false;
    video.currentTime = 0;
    video.play().catch((error) => {
      if (error.name === "NotAllowedError") byId("hint").textContent = "Press play once more.";
    });
  }
  function hasSeenAll(video) {
    let seconds = 0;
    for (let i = 0; i < video.played.length; i++) seconds += video.played.end(i) - video.played.start(i);
    return seconds > 0.8 * video.duration;
  }
  videos.forEach((video, side) => {
    const figure = figures[side], line = figure.querySelector(".time i");
    figure.querySelector(".play").addEventListener("click", () => {
      if (video.paused) play(side); else stop(side);
    });
    video.addEventListener("playing", () => figure.classList.add("playing"));
    video.addEventListener("timeupdate", () => {
      line.style.width = `${video.duration ? 100 * video.currentTime / video.duration : 0}%`;
    });
    video.addEventListener("ended", () => {
      figure.classList.remove("playing");
      if (!hasSeenAll(video)) return;
      record().plays[side] += 1;
      remember();
      refresh();
    });
    video.addEventListener("error", () => {
      if (!progress || !video.getAttribute("src")) return;
      byId("skip").hidden = false;
      byId("hint").textContent = `Video ${letters[side]} cannot be played in this browser.`;
    });
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { stop(0); stop(1); if (progress) remember(); }
  });

  function remember() {
    if (!record()) return;
    record().ms = elapsed();
    shownAt = performance.now();
    save();
  }
  function choose(number, choice) {
    if (!isWatched()) return;
    const [name] = study.questions[number];
    record().answers[name] = { choice, ms: elapsed() };
    remember();
    const open = study.questions.findIndex(([other], i) => i > number && !record().answers[other]);
    current = open >= 0 ? open : Math.min(number + 1, study.questions.length - 1);
    refresh();
  }
  function next() {
    if (!isAnswered()) return;
    remember();
    progress.at += 1;
    save();
    show();
  }
  function skip() {
    record().answers = {};
    for (const [name] of study.questions) {
      record().answers[name] = { choice: "unplayable", ms: elapsed() };
    }
    next();
  }

  function buildQuestions() {
    byId("questions").replaceChildren(...study.questions.map(([name, text], number) => {
      const group = document.createElement("div"), label = document.createElement("p");
      const buttons = document.createElement("div");
      group.className = "question";
      group.setAttribute("role", "group");
      label.id = `question-${name}`;
      label.textContent = text;
      group.setAttribute("aria-labelledby", label.id);
      buttons.className = "choices";
      for (const choice of choices) {
        const button = document.createElement("button");
        button.type = "button";
        button.dataset.choice = choice;
        button.textContent = labels[choice];
        button.addEventListener("click", () => choose(number, choice));
        buttons.append(button);
      }
      group.append(label, buttons);
      return group;
    }));
  }
  function refresh() {
    const watched = isWatched();
    byId("questions").classList.toggle("locked", !watched);
    [...byId("questions").children].forEach((group, number) => {
      const answer = record().answers[study.questions[number][0]];
      group.classList.toggle("current", watched && number === current);
      for (const button of group.querySelectorAll("button")) {
        button.disabled = !watched;
        button.setAttribute("aria-pressed", String(!!answer && answer.choice === button.dataset.choice));
      }
    });
    figures.forEach((figure, side) => {
      const count = record().plays[side];
      figure.classList.toggle("watched", count > 0);
      figure.querySelector(".state").textContent = count > 0 ? "watched" : "not yet watched";
    });
    const last = progress.at + 1 === trials.length;
    byId("next").disabled = !isAnswered();
    byId("next").textContent = last ? "Finish" : "Next pair";
    byId("hint").textContent = !watched ? "Watch both videos to the end, then answer."
      : isAnswered() ? "" : "Answer all questions; you may watch again.";
  }
  function show() {
    byId("start").hidden = true;
    const done = progress.at >= trials.length;
    byId("trial").hidden = done;
    byId("end").hidden = !done;
    figures.forEach((_, side) => stop(side));
    if (done) { finish(); return; }
    if (!record()) progress.trials[progress.at] = { answers: {}, plays: [0, 0], ms: 0 };
    const [, ...sides] = trials[progress.at];
    byId("skip").hidden = true;
    sides.forEach((clip, side) => {
      videos[side].src = source(clip);
      figures[side].querySelector(".time i").style.width = "0";
    });
    const open = study.questions.findIndex(([name]) => !record().answers[name]);
    current = Math.max(open, 0);
    shownAt = performance.now();
    byId("count").textContent = `Pair ${progress.at + 1} of ${trials.length}`;
    byId("who").textContent = `Number ${rater}`;
    byId("bar").firstElementChild.style.width = `${100 * progress.at / trials.length}%`;
    byId("bar").setAttribute("aria-valuenow", progress.at);
    byId("bar").setAttribute("aria-valuemax", trials.length);
    byId("so-far").hidden = progress.at === 0;
    refresh();
    scrollTo(0, 0);
  }
  function finish() {
    videos.forEach((video) => { video.removeAttribute("src"); video.load(); });
    byId("end-text").textContent = `You have answered all ${trials.length} pairs. One step is left:`;
    byId("file-name").textContent = fileName();
    byId("text").value = voteFile();
    byId("download").focus();
  }

  // ---- keys
  document.addEventListener("keydown", (event) => {
    if (byId("trial").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const answer = { arrowleft: "left", arrowright: "right", arrowdown: "tie" }[key];
    if (key === "1" || key === "a") play(0);
    else if (key === "2" || key === "b") play(1);
    else if (answer && isWatched()) { if (choices.includes(answer)) choose(current, answer); }
    else if (key === "arrowup" && isWatched()) { current = Math.max(current - 1, 0); refresh(); }
    else if (key === "enter" && isAnswered() && !event.repeat) next();
    else return;
    event.preventDefault();
  });

  // ---- who is it
  const wanted = () => byId("rater").value.trim();
  function entryNote() {
    const own = study.raters[wanted()];
    if (!wanted()) { byId("entry-note").textContent = "The number you were given."; return; }
    if (!own) {
      byId("entry-note").textContent =
        `There is no number ${wanted()} in this study; look again at what you were given.`;
      return;
    }
    rater = wanted();
    const done = Math.min(load().at, own.length);
    rater = null;
    byId("entry-note").textContent = done === 0
      ? `${own.length} pairs, about ${study.minutes[wanted()]} minutes.`
      : done < own.length ? `Welcome back: ${done} of ${own.length} pairs are done.`
      : "All pairs are done; start shows your answers.";
  }
  byId("entry").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!study.raters[wanted()]) { entryNote(); byId("rater").focus(); return; }
    rater = wanted();
    trials = study.raters[rater];
    progress = load();
    document.activeElement.blur();
    show();
  });
  byId("rater").addEventListener("input", entryNote);
  byId("next").addEventListener("click", next);
  byId("skip").addEventListener("click", skip);
  byId("so-far").addEventListener("click", download);
  byId("download").addEventListener("click", download);
  byId("text").addEventListener("focus", () => byId("text").select());

  byId("num-questions").textContent = study.questions.length;
  byId("keys").innerHTML = "<kbd>1</kbd> <kbd>2</kbd> play · <kbd>←</kbd> A · "
    + (study.forced ? "" : "<kbd>↓</kbd> same · ")
    + "<kbd>→</kbd> B · <kbd>↑</kbd> back · <kbd>Enter</kbd> next";
  buildQuestions();
  byId("rater").value = new URLSearchParams(location.search).get("rater") || "";
  entryNote();
  byId("start").hidden = false;
})();
