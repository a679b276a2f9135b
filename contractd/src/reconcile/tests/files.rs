//! Who waits for the files of an flist, and why.

use super::*;

#[test]
fn a_fetch_ends_when_its_contract_does_not_want_the_flist_any_more() {
    let mut bench = Bench::new();
    bench.hear(&bench.world.agreed());
    bench.judge(10);
    let wants = judge::wants(&bench.reconciler.verdicts);
    let Kind::Container { flist, .. } = wants[0].kind else { panic!("{wants:?}") };
    let (of, other) = ((wants[0].contract, flist), (ContractId([1; 32]), flist));
    bench.reconciler.files.insert(of, Files::Fetching);
    bench.reconciler.files.insert(other, Files::Fetching);
    bench.reconciler.forget_fetches(&wants);
    let told = bench.orders.try_recv();
    assert!(matches!(told, Ok(Order::Forget(one, id)) if (one, id) == other));
    assert!(bench.orders.try_recv().is_err());
    bench.reconciler.forget_fetches(&[]);
    assert!(matches!(bench.orders.try_recv(), Ok(Order::Forget(one, id)) if (one, id) == of));
    assert!(bench.reconciler.files.is_empty());
}

/// Whose server is gone waits alone, and is helped by whoever has another.
#[test]
fn a_failed_fetch_is_one_contracts_and_files_that_are_there_are_everybodys() {
    let mut bench = Bench::new();
    let this = &mut bench.reconciler;
    let flist = FlistId([9; 32]);
    let [one, other] = [1, 2].map(|n| ContractId([n; 32]));
    this.files.insert((one, flist), Files::Fetching);
    this.files.insert((other, flist), Files::Fetching);
    this.take_fetched(one, flist, Err(("source_unreachable", "nobody answers".to_owned())));
    assert!(matches!(this.files[&(one, flist)], Files::Failed { .. }));
    assert_eq!(this.files[&(other, flist)], Files::Fetching);
    this.take_fetched(other, flist, Ok(()));
    assert_eq!(
        [one, other].map(|of| this.files[&(of, flist)].clone()),
        [Files::Ready, Files::Ready]
    );
    assert!(this.fetch_delay_ms.is_empty());
}
