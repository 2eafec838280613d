//! Extensions at the end of a request: security contexts and supplementary groups of a create.

use crate::base::Errno;
use crate::kernel::abi::flags::EXT_GROUPS;
use crate::kernel::abi::{ExtHeader, InHeader, RECORD_ALIGN, Secctx, SecctxHeader, SuppGroups};
use zerocopy::FromBytes;

/// Splits `payload` into what belongs to the operation and the extensions after it.
///
/// # Errors
/// `EINVAL` if the header claims more extensions than there are bytes.
pub fn split<'a>(header: &InHeader, payload: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Errno> {
    let bytes = usize::from(header.total_extlen) * RECORD_ALIGN;
    let at = payload.len().checked_sub(bytes).ok_or(Errno::EINVAL)?;
    Ok(payload.split_at(at))
}

/// Name of an attribute and its value.
pub type Context<'a> = (&'a [u8], &'a [u8]);

/// The first security context among `extensions`: name of its attribute (without NUL) and value.
///
/// # Errors
/// `EINVAL` for extensions that do not add up.
pub fn security_context(extensions: &[u8]) -> Result<Option<Context<'_>>, Errno> {
    let Some(body) = find(extensions, |kind| kind < EXT_GROUPS)? else { return Ok(None) };
    // Its header's second word is the number of contexts, where others have their type.
    let (header, body) = SecctxHeader::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
    if header.nr_secctx == 0 {
        return Ok(None);
    }
    let (context, rest) = Secctx::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
    let nul = rest.iter().position(|&b| b == 0).ok_or(Errno::EINVAL)?;
    let value =
        usize::try_from(context.size).ok().and_then(|n| rest[nul + 1..].get(..n)).ok_or(Errno::EINVAL)?;
    Ok((!value.is_empty()).then_some((&rest[..nul], value)))
}

/// The caller's group that decides a create in a directory with the setgid bit, if the kernel sent groups.
///
/// # Errors
/// `EINVAL` for extensions that do not add up.
pub fn groups(extensions: &[u8]) -> Result<impl Iterator<Item = u32> + '_, Errno> {
    let body = find(extensions, |kind| kind == EXT_GROUPS)?.unwrap_or_default();
    let body = body.get(size_of::<ExtHeader>()..).unwrap_or_default();
    let (count, list) = match SuppGroups::read_from_prefix(body) {
        Ok((head, list)) => (usize::try_from(head.nr_groups).map_err(|_| Errno::EINVAL)?, list),
        Err(_) => (0, &[][..]),
    };
    if list.len() / 4 < count {
        return Err(Errno::EINVAL);
    }
    Ok(list.chunks_exact(4).take(count).map(|g| u32::from_ne_bytes([g[0], g[1], g[2], g[3]])))
}

/// The first extension, with its header, whose type pleases `wanted`.
fn find(mut rest: &[u8], wanted: impl Fn(u32) -> bool) -> Result<Option<&[u8]>, Errno> {
    while !rest.is_empty() {
        let (header, _) = ExtHeader::read_from_prefix(rest).map_err(|_| Errno::EINVAL)?;
        let size = usize::try_from(header.size).map_err(|_| Errno::EINVAL)?;
        // A size below the header's would loop for ever.
        if size < size_of::<ExtHeader>() || size > rest.len() {
            return Err(Errno::EINVAL);
        }
        if wanted(header.kind) {
            return Ok(Some(&rest[..size]));
        }
        rest = rest.get(size.next_multiple_of(RECORD_ALIGN)..).unwrap_or_default();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::{groups, security_context, split};
    use crate::base::Errno;
    use crate::kernel::abi::{ExtHeader, InHeader, Secctx, SecctxHeader};
    use zerocopy::IntoBytes;

    fn group_extension(groups: &[u32]) -> Vec<u8> {
        let count = u32::try_from(groups.len()).unwrap();
        let size = 8 + 4 + 4 * count;
        let mut out = ExtHeader { size, kind: 32 }.as_bytes().to_vec();
        out.extend(count.to_ne_bytes());
        groups.iter().for_each(|g| out.extend(g.to_ne_bytes()));
        out.resize(out.len().next_multiple_of(8), 0);
        out
    }

    fn context_extension() -> Vec<u8> {
        let mut body = Secctx { size: 4, padding: 0 }.as_bytes().to_vec();
        body.extend(b"security.selinux\0ctx\0");
        let size = u32::try_from(8 + body.len()).unwrap();
        let mut out = SecctxHeader { size, nr_secctx: 1 }.as_bytes().to_vec();
        out.extend(body);
        out.resize(out.len().next_multiple_of(8), 0);
        out
    }

    #[test]
    fn both_extensions_are_found_in_either_order() {
        for swapped in [false, true] {
            let (mut all, other) = if swapped {
                (group_extension(&[7, 9, 11]), context_extension())
            } else {
                (context_extension(), group_extension(&[7, 9, 11]))
            };
            all.extend(other);
            assert_eq!(groups(&all).unwrap().collect::<Vec<_>>(), [7, 9, 11]);
            assert_eq!(security_context(&all), Ok(Some((&b"security.selinux"[..], &b"ctx\0"[..]))));
        }
    }

    #[test]
    fn extensions_that_do_not_add_up_are_refused() {
        let mut lying = group_extension(&[1]);
        lying[8] = 200;
        assert_eq!(groups(&lying).err(), Some(Errno::EINVAL));
        let endless = ExtHeader { size: 0, kind: 1 };
        assert_eq!(groups(endless.as_bytes()).err(), Some(Errno::EINVAL));
        let header = InHeader { total_extlen: 2, ..InHeader::default() };
        assert_eq!(split(&header, &[0; 15]), Err(Errno::EINVAL));
        assert_eq!(split(&header, &[1; 17]).map(|(op, ext)| (op.len(), ext.len())), Ok((1, 16)));
    }
}
